"""Yield and downstream gain of the digits preset over several generation seeds and many classifier seeds.

    .venv/bin/python -m benchmarks.digits --generations 2 --seeds 10

Every generation seed draws its own candidates and baseline, and compares all arms of the preset on them. Predictions
are paired by (generation seed, classifier seed) and test image. Intervals cover the chance in sampling, training and
testing; the backbone and the split stay the same throughout.
"""

import argparse
from collections import ChainMap
from collections.abc import Sequence

import pandas as pd

from benchmarks.arm_tables import chosen_on_validation, difference_table, figures
from flows import command_line  # noqa: F401 - sets Prefect's environment before Prefect is imported
from minority.downstream.comparison import METRICS
from minority.downstream.data import DownstreamData
from minority.downstream.jobs import Outcome
from tasks.config.presets import load_preset, parse_overrides
from tasks.config.runs import AugmentConfig
from tasks.downstream.trainings import open_arms, read_outcome
from tasks.report.verdict import PUBLISHED_SOURCE

SHOWN = [metric for metric in METRICS if metric != "worst_group_accuracy"]  # groups are the classes here


def run(generation: int, *, overrides: dict[str, object]) -> tuple[pd.DataFrame, Outcome, DownstreamData]:
    """One run of the preset: its sampler figures, its trainings under seeds of their own, and the images."""
    from flows.augment import augment

    config = load_preset(AugmentConfig, "digits", overrides={"seed": generation, **overrides})
    summary = augment(config)
    comparison = config.comparison(summary.manifest)
    assert comparison is not None, "the preset compares arms"
    found = read_outcome(comparison)
    validated, tested = (
        {arm: {1000 * generation + seed: said for seed, said in by_seed.items()} for arm, by_seed in part.items()}
        for part in (found.validated, found.tested)
    )
    samplers = pd.DataFrame(summary.samplers).assign(generation=generation)
    outcome = Outcome(chosen=found.chosen, validated=validated, tested=tested)
    return samplers, outcome, open_arms(comparison).comparison.data


def joined(parts: Sequence[Outcome]) -> Outcome:
    """The trainings of several generations, arm by arm."""
    return Outcome(
        validated={arm: dict(ChainMap(*(part.validated[arm] for part in parts))) for arm in parts[0].validated},
        tested={arm: dict(ChainMap(*(part.tested[arm] for part in parts))) for arm in parts[0].tested},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generations", type=int, default=2, help="generation seeds")
    parser.add_argument("--seeds", type=int, default=10, help="classifier seeds of each")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting of the preset"
    )
    parser.add_argument("--store", default="runs/benchmark")
    arguments = parser.parse_args()
    overrides = {"downstream.seeds": arguments.seeds, "store": arguments.store, **parse_overrides(arguments.set)}
    samplers, outcomes, data = zip(
        *(run(generation, overrides=overrides) for generation in range(arguments.generations)), strict=True
    )

    print("\n## Samplers on the same seeds\n")
    print(pd.concat(samplers).to_markdown(index=False))
    outcome = joined(outcomes)
    print(f"\n## Classifiers, {arguments.generations} x {arguments.seeds} seeds, % (95 % interval)\n")
    print(figures(outcome.tested, data[0], metrics=SHOWN).to_markdown())
    best = chosen_on_validation(outcome, [arm for arm in outcome.tested if PUBLISHED_SOURCE in arm], data[0])
    print(f"\n## {best}, chosen on validation, against the other arms, points (paired 95 % interval)\n")
    print(difference_table(best, [arm for arm in outcome.tested if arm != best], outcome.tested, data[0]))


if __name__ == "__main__":
    main()
