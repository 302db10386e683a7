"""Yield and downstream gain of the digits preset over several generation seeds and many classifier seeds.

    .venv/bin/python -m benchmarks.digits --generations 2 --seeds 10

Every generation seed draws its own candidates and baseline, and compares all arms of the preset on them. Predictions
are paired by (generation seed, classifier seed) and test image. Intervals cover the chance in sampling, training and
testing; the backbone and the split stay the same throughout.
"""

import argparse

import pandas as pd

from flows import command_line  # noqa: F401 - sets Prefect's environment before Prefect is imported
from minority.downstream.comparison import METRICS, choose_arm, paired_difference, summarise
from minority.downstream.data import DownstreamData
from minority.downstream.predictions import Predictions
from tasks.config.presets import load_preset, parse_overrides
from tasks.config.runs import AugmentConfig
from tasks.downstream.trainings import open_arms, read_outcome
from tasks.report.verdict import PUBLISHED_SOURCE

Runs = dict[str, dict[int, Predictions]]
SHOWN = [metric for metric in METRICS if metric != "worst_group_accuracy"]  # groups are the classes here


def run(generation: int, *, overrides: dict[str, object]) -> tuple[pd.DataFrame, Runs, Runs, DownstreamData]:
    """One run of the preset: its sampler figures, and the predictions of validation and test images."""
    from flows.augment import augment

    config = load_preset(AugmentConfig, "digits", overrides={"seed": generation, **overrides})
    summary = augment(config)
    comparison = config.comparison(summary.manifest)
    assert comparison is not None, "the preset compares arms"
    outcome = read_outcome(comparison)
    runs = [
        {arm: {1000 * generation + seed: found for seed, found in by_seed.items()} for arm, by_seed in part.items()}
        for part in (outcome.validated, outcome.tested)
    ]
    samplers = pd.DataFrame(summary.samplers).assign(generation=generation)
    return samplers, runs[0], runs[1], open_arms(comparison).comparison.data


def joined(parts: list[Runs]) -> Runs:
    """The runs of several generations, arm by arm."""
    return {arm: {seed: found for part in parts for seed, found in part[arm].items()} for arm in parts[0]}


def arm_table(tested: Runs, data: DownstreamData) -> str:
    """Mean and 95 % interval of every arm."""
    means = summarise(tested, data.test, metrics=SHOWN)
    means["figure"] = [
        f"{100 * mean:.1f} ({100 * low:.1f} ... {100 * high:.1f})"
        for mean, low, high in zip(means["mean"], means["low"], means["high"], strict=True)
    ]
    return str(means.pivot(index="arm", columns="metric", values="figure").loc[list(tested)][SHOWN].to_markdown())


def difference_table(arm: str, tested: Runs, data: DownstreamData) -> str:
    """The paired differences of one arm to all others."""
    rows = []
    for baseline in (name for name in tested if name != arm):
        row = {"against": baseline}
        for metric in SHOWN:
            found = paired_difference(tested, arm, baseline=baseline, truth=data.test, metric=metric)
            doubt = "" if found.excludes_zero else " n.s."
            row[metric] = f"{100 * found.mean:+.1f} ({100 * found.low:.1f} ... {100 * found.high:.1f}){doubt}"
        rows.append(row)
    return str(pd.DataFrame(rows).to_markdown(index=False))


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
    samplers, validated, tested, data = zip(
        *(run(generation, overrides=overrides) for generation in range(arguments.generations)), strict=True
    )

    print("\n## Samplers on the same seeds\n")
    print(pd.concat(samplers).to_markdown(index=False))
    runs = joined(list(tested))
    print(f"\n## Classifiers, {arguments.generations} x {arguments.seeds} seeds, % (95 % interval)\n")
    print(arm_table(runs, data[0]))
    choices = {arm: found for arm, found in joined(list(validated)).items() if PUBLISHED_SOURCE in arm}
    best = choose_arm(choices, data[0].validation, num_groups=len(data[0].group_names))
    print(f"\n## {best}, chosen on validation, against the other arms, points (paired 95 % interval)\n")
    print(difference_table(best, runs, data[0]))
    print("\nn.s.: the interval does not exclude 0.")


if __name__ == "__main__":
    main()
