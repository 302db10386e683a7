"""Differences between recipes over training draws: each with its own split, backbone and generation seed.

An interval over classifier seeds and test images of one draw says how sure one draw is, not what another would bring.
Here the draw is the unit: a bootstrap in three layers draws draws, then seeds inside them, then test images inside
their classes (Davison & Hinkley 1997, section 3.8). Of n draws, n - 1 are drawn, which makes the variance of the mean
unbiased (Rao & Wu 1988), and the percentiles are widened to those that Student's t with n - 1 degrees of freedom has
(Hesterberg 2015, "expanded percentile"), since five draws know little about their own spread. Seeds and images are
drawn on top of that, which makes the interval wider than needed, not narrower.

Shapes: S seeds, N test images, R replicates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from minority.downstream.data import Bool, Float64, Int64

DrawMetric = Literal["balanced_accuracy", "worst_class_accuracy"]
Verdict = Literal["pays", "does not", "not decided"]

#: The smallest gain that is worth a generator: one point.
WORTH = 0.01
#: Fewer draws decide nothing.
FEWEST_DRAWS = 5
_REPLICATES = 4000
_CHUNK = 500


@dataclass(frozen=True, eq=False, kw_only=True)
class DrawAnswers:
    """What one arm said of a draw's test images.

    Attributes:
        right: (S, N) whether it was right, a row a seed.
        parts: (N,) the test images' classes, or other cells to be balanced over.
    """

    right: Bool
    parts: Int64


@dataclass(frozen=True, kw_only=True)
class DrawDifference:
    """A difference in [-1, 1] over draws.

    Attributes:
        mean: Mean over draws.
        low: Lower end of the interval, NaN with one draw.
        high: Upper end.
        by_draw: The difference of every draw.
    """

    mean: float
    low: float
    high: float
    by_draw: tuple[float, ...]

    @property
    def verdict(self) -> Verdict:
        """Whether it pays, by `verdict_of`."""
        return verdict_of(self.low, self.high, draws=len(self.by_draw))


def verdict_of(low: float, high: float, *, draws: int, worth: float = WORTH) -> Verdict:
    """By the rule of docs/draws.md, which was written before the runs.

    "pays": the whole interval lies above 0. "does not": it lies below the smallest gain that is worth it, one point.
    "not decided": neither, or fewer than 5 draws.

    Args:
        low: Lower end of the interval of a gain; NaN where it is not known.
        high: Upper end.
        draws: Over how many draws.
        worth: The smallest gain that is worth it, in the unit of the interval.
    """
    if draws < FEWEST_DRAWS or np.isnan(low):
        return "not decided"
    if low > 0:
        return "pays"
    return "does not" if high < worth else "not decided"


def figure(tested: DrawAnswers, metric: DrawMetric = "balanced_accuracy") -> float:
    """Mean over seeds of one draw's figure, in [0, 1]."""
    return float(_of_parts(_accuracies(tested), metric).mean())


def over_draws(
    evaluated: Sequence[DrawAnswers],
    rivals: Sequence[DrawAnswers],
    *,
    metric: DrawMetric = "balanced_accuracy",
    confidence: float = 0.95,
) -> DrawDifference:
    """Mean of evaluated - rival over draws, with its interval.

    Args:
        evaluated: One a draw.
        rivals: One a draw, of the same test images.
        metric: What is compared.
        confidence: Coverage, in (0, 1).

    Raises:
        ValueError: There is no draw, or the two do not go together.
    """
    if not evaluated or len(evaluated) != len(rivals):
        raise ValueError(f"a comparison needs both arms in every draw, got {len(evaluated)} and {len(rivals)}.")
    for draw, (one, other) in enumerate(zip(evaluated, rivals, strict=True)):
        if not np.array_equal(one.parts, other.parts):
            raise ValueError(f"the two arms of draw {draw} were tested on different images.")
    by_draw = [figure(one, metric) - figure(other, metric) for one, other in zip(evaluated, rivals, strict=True)]
    mean, count = float(np.mean(by_draw)), len(by_draw)
    if count < 2:
        return DrawDifference(mean=mean, low=float("nan"), high=float("nan"), by_draw=tuple(by_draw))
    rng = np.random.default_rng(0)
    replicates = np.stack(
        [
            _redrawn_difference(one, other, metric, seed=draw)
            for draw, (one, other) in enumerate(zip(evaluated, rivals, strict=True))
        ],
        axis=1,
    )  # (R, draws)
    chosen = rng.integers(count, size=(_REPLICATES, count - 1))
    means = np.take_along_axis(replicates, chosen, axis=1).mean(axis=1)
    tail = float(stats.norm.cdf(stats.t.ppf((1 - confidence) / 2, count - 1)))
    low, high = np.quantile(means, [tail, 1 - tail])
    return DrawDifference(mean=mean, low=float(low), high=float(high), by_draw=tuple(by_draw))


def best_on_validation(validated: Mapping[str, float], names: Sequence[str]) -> str:
    """The arm that did best on validation images, of those named; the first of equals.

    Raises:
        ValueError: None of them was validated.
    """
    known = [name for name in names if name in validated]
    if not known:
        raise ValueError(f"none of {', '.join(names) or 'no arms'} has figures on validation images.")
    return max(known, key=lambda name: round(validated[name], 9))


def _accuracies(tested: DrawAnswers) -> Float64:
    """(S, parts that are there)."""
    return np.stack([tested.right[:, tested.parts == part].mean(axis=1) for part in np.unique(tested.parts)], axis=1)


def _of_parts(accuracies: Float64, metric: DrawMetric) -> Float64:
    return np.asarray(accuracies.mean(axis=-1) if metric == "balanced_accuracy" else accuracies.min(axis=-1))


def _redrawn_difference(evaluated: DrawAnswers, rival: DrawAnswers, metric: DrawMetric, *, seed: int) -> Float64:
    """(R,) the difference in one draw, with seeds and test images drawn anew, the same images for both arms."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(evaluated.parts == part) for part in np.unique(evaluated.parts)]
    found = []
    for start in range(0, _REPLICATES, _CHUNK):
        size = min(_CHUNK, _REPLICATES - start)
        weights = [
            rng.multinomial(len(inside), np.full(len(inside), 1 / len(inside)), size=size) / len(inside)
            for inside in members
        ]
        uniform = rng.random((size, max(len(evaluated.right), len(rival.right))))
        one, other = (_means(arm, metric, weights, members, uniform) for arm in (evaluated, rival))
        found.append(one - other)
    return np.concatenate(found)


def _means(
    arm: DrawAnswers,
    metric: DrawMetric,
    weights: Sequence[Float64],
    members: Sequence[Int64],
    uniform: Float64,
) -> Float64:
    """(R,) the mean over redrawn seeds; with positions as uniform numbers, seeds are paired where both have as many."""
    count = len(arm.right)
    accuracies = np.stack(
        [some @ arm.right[:, inside].T.astype(np.float64) for some, inside in zip(weights, members, strict=True)],
        axis=2,
    )  # (R, S, parts)
    seeds = (uniform[:, :count] * count).astype(np.int64)
    return np.asarray(np.take_along_axis(_of_parts(accuracies, metric), seeds, axis=1).mean(axis=1))
