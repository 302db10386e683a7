"""Yield and downstream gain of the digits preset over several generation seeds and many classifier seeds.

    .venv/bin/python -m benchmarks.digits --generations 3 --seeds 10

Every generation seed draws its own candidates and baseline; every classifier seed trains all four arms. Differences are
paired by (generation seed, classifier seed). Intervals cover the chance in sampling and in training; the split into
training and test scans and the backbone stay the same throughout.
"""

import argparse

import pandas as pd

from flows import command_line  # noqa: F401 - sets Prefect's environment before Prefect is imported
from minority.gains import paired_difference, summarise
from tasks.config import AugmentConfig
from tasks.downstream import read_results
from tasks.generation import open_run_store
from tasks.presets import load_preset
from tasks.workspace import open_workspace

METRICS = ("worst_class_accuracy", "balanced_accuracy", "accuracy")
ARM = "real+minority"


def run(generation: int, *, seeds: int, augmentation: bool, store: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One run of the preset. Returns its sampler figures and its downstream results."""
    from flows.augment import augment

    overrides = {"seed": generation, "downstream.seeds": seeds, "store": store}
    if not augmentation:
        overrides |= {"downstream.classifier.max_shift": 0, "downstream.classifier.max_rotation": 0}
    config = load_preset(AugmentConfig, "digits", overrides=overrides)
    summary = augment(config)
    results = read_results(config, open_run_store(open_workspace(config)))
    assert results is not None
    results["seed"] += 1000 * generation
    return pd.DataFrame(summary.samplers).assign(generation=generation), results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generations", type=int, default=3, help="generation seeds")
    parser.add_argument("--seeds", type=int, default=10, help="classifier seeds of each")
    parser.add_argument("--no-augmentation", action="store_true", help="classifiers without augmentation of their own")
    parser.add_argument("--store", default="runs/benchmark")
    arguments = parser.parse_args()
    runs = [
        run(g, seeds=arguments.seeds, augmentation=not arguments.no_augmentation, store=arguments.store)
        for g in range(arguments.generations)
    ]

    print("\n## Samplers on the same seeds\n")
    print(pd.concat([samplers for samplers, _ in runs]).to_markdown(index=False))
    results = pd.concat([rows for _, rows in runs], ignore_index=True)
    print(f"\n## Classifiers, {arguments.generations} x {arguments.seeds} seeds, % (95 % interval)\n")
    means = summarise(results)
    means = means[means["metric"].isin(METRICS)]
    means = means.assign(
        figure=[
            f"{100 * mean:.1f} ({100 * low:.1f} ... {100 * high:.1f})"
            for mean, low, high in zip(means["mean"], means["low"], means["high"], strict=True)
        ]
    )
    print(means.pivot(index="arm", columns="metric", values="figure")[list(METRICS)].to_markdown())
    print(f"\n## {ARM} against the other arms, points (paired 95 % interval)\n")
    rows = []
    for baseline in [arm for arm in results["arm"].unique() if arm != ARM]:
        differences = {metric: paired_difference(results, ARM, baseline=baseline, metric=metric) for metric in METRICS}
        rows.append(
            {"against": baseline}
            | {
                metric: f"{100 * d.mean:+.1f} ({100 * d.low:.1f} ... {100 * d.high:.1f})"
                + ("" if d.excludes_zero else " n.s.")
                for metric, d in differences.items()
            }
        )
    print(pd.DataFrame(rows).to_markdown(index=False))
    print("\nn.s.: the interval does not exclude 0.")


if __name__ == "__main__":
    main()
