"""What the downstream results say: arms with intervals, paired differences, and the verdict in one sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from minority.gains import ARM_PHRASES, METRIC_PHRASES, PairedDifference, paired_difference, summarise, verdict
from tasks.report.findings import Estimate, Ratios, SamplerFindings

MAIN_ARM = "real+minority"
BASE_ARM = "real"
MAIN_METRIC = "worst_class_accuracy"
AHEAD, BEHIND, LEVEL, ONE_SEED = "ahead", "behind", "not distinguishable", "one seed, no interval"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A paired difference between two arms, and where it leaves the first one.

    Attributes:
        difference: The difference with its interval.
        standing: "ahead", "behind", "not distinguishable" or "one seed, no interval".
        sentence: The difference in words.
    """

    difference: PairedDifference
    standing: str
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Downstream:
    """The downstream results, summed up.

    Attributes:
        arms: Arms in order of appearance.
        metrics: Metrics other than the classes' recalls, in order of appearance.
        num_seeds: Seeds of each arm; the smallest number where arms differ.
        means: Mean and interval of every metric of every arm: {arm: {metric: estimate}}.
        recalls: The same for the recall of every class: {arm: {label: estimate}}.
        comparisons: The main arm against every other, then every remaining arm against real only; for each metric.
    """

    arms: tuple[str, ...]
    metrics: tuple[str, ...]
    num_seeds: int
    means: Mapping[str, Mapping[str, Estimate]]
    recalls: Mapping[str, Mapping[int, Estimate]]
    comparisons: tuple[Comparison, ...]

    def against(self, arm: str, baseline: str, *, metric: str = MAIN_METRIC) -> Comparison | None:
        """The comparison of two arms on one metric, or None where it was not made."""
        wanted = (arm, baseline, metric)
        for comparison in self.comparisons:
            difference = comparison.difference
            if (difference.arm, difference.baseline, difference.metric) == wanted:
                return comparison
        return None

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The (arm, baseline) pairs that were compared, in order."""
        return tuple(dict.fromkeys((each.difference.arm, each.difference.baseline) for each in self.comparisons))

    def strongest_other(self, metric: str = MAIN_METRIC) -> str | None:
        """The arm with the highest mean besides the main one and real only, or None where there is no such arm."""
        others = [arm for arm in self.arms if arm not in (MAIN_ARM, BASE_ARM) and metric in self.means[arm]]
        return max(others, key=lambda arm: self.means[arm][metric].value, default=None)


def judge_results(results: pd.DataFrame | None) -> Downstream | None:
    """Sum up the downstream results.

    Args:
        results: Rows of (arm, seed, metric, value), or None where nothing was trained.

    Returns:
        The summary, or None where there are no results.

    Raises:
        ValueError: Where the table is unsound or compared arms were run with different seeds, see minority.gains.
    """
    if results is None or results.empty:
        return None
    summary = summarise(results)
    means: dict[str, dict[str, Estimate]] = {}
    recalls: dict[str, dict[int, Estimate]] = {}
    for row in summary.to_dict("records"):
        estimate = Estimate(value=row["mean"], low=row["low"], high=row["high"])
        if row["metric"].startswith("recall_"):
            recalls.setdefault(row["arm"], {})[int(row["metric"].removeprefix("recall_"))] = estimate
        else:
            means.setdefault(row["arm"], {})[row["metric"]] = estimate
    arms = tuple(dict.fromkeys(summary["arm"]))
    return Downstream(
        arms=arms,
        metrics=tuple(dict.fromkeys(metric for found in means.values() for metric in found)),
        num_seeds=int(summary["num_seeds"].min()),
        means={arm: means.get(arm, {}) for arm in arms},
        recalls=recalls,
        comparisons=tuple(_compare_all(results, arms, means=means)),
    )


def pronounce(downstream: Downstream | None, samplers: Mapping[str, SamplerFindings], *, ratios: Ratios | None) -> str:
    """The verdict of the run in one sentence: downstream where it was measured, the yield where not."""
    comparisons = headline_comparisons(downstream)
    if comparisons:
        return "Training on real + minority images: " + "; and ".join(found.sentence for found in comparisons) + "."
    if "minority" not in samplers:
        return "No sample was drawn with guidance, so there is nothing to judge."
    share = samplers["minority"].yield_
    claim = f"{100 * share.value:.1f}% of the samples drawn are rare, valid and new"
    if ratios is not None and np.isfinite(ratios.yield_.value):
        gain = ratios.yield_
        interval = "" if np.isnan(gain.low) else f" ({gain.low:.1f} ... {gain.high:.1f}, 95% interval)"
        claim += f", {gain.value:.1f} times the share of plain sampling{interval}"
    return claim + "; what they are worth to a classifier was not measured."


def headline_comparisons(downstream: Downstream | None) -> list[Comparison]:
    """The main arm against real only and against the strongest other arm, as far as they were measured."""
    if downstream is None:
        return []
    baselines: Sequence[str | None] = (BASE_ARM, downstream.strongest_other())
    found = [downstream.against(MAIN_ARM, baseline) for baseline in baselines if baseline is not None]
    return [comparison for comparison in found if comparison is not None]


def name_of_arm(arm: str) -> str:
    """An arm's name for people, e.g. "real + minority"."""
    return ARM_PHRASES.get(arm, arm.replace("+", " + "))


def name_of_metric(metric: str) -> str:
    """A metric's name for people, e.g. "worst-class accuracy"."""
    return METRIC_PHRASES.get(metric, metric.replace("_", " "))


def _compare_all(
    results: pd.DataFrame, arms: Sequence[str], *, means: Mapping[str, Mapping[str, Estimate]]
) -> list[Comparison]:
    pairs = [(MAIN_ARM, other) for other in arms if other != MAIN_ARM] if MAIN_ARM in arms else []
    pairs += [(arm, BASE_ARM) for arm in arms if arm not in (MAIN_ARM, BASE_ARM) and BASE_ARM in arms]
    comparisons = []
    for arm, baseline in pairs:
        for metric in means.get(arm, {}):
            if metric not in means.get(baseline, {}):
                continue
            difference = paired_difference(results, arm, baseline=baseline, metric=metric)
            comparisons.append(
                Comparison(difference=difference, standing=_standing(difference), sentence=verdict(difference))
            )
    return comparisons


def _standing(difference: PairedDifference) -> str:
    if difference.num_seeds < 2:
        return ONE_SEED
    if not difference.excludes_zero:
        return LEVEL
    return AHEAD if difference.mean > 0 else BEHIND
