"""Arms compared, with intervals that cover the chance of training and of testing.

Two things could have been otherwise: the seeds of the trainings and the images of the test. Both are drawn again with
replacement, many times, and the figure is computed each time: a bootstrap over seeds and test images (Efron 1979). Two
arms are compared in the same draws, seed by seed and image by image, so what they share cancels out. Test images are
drawn within their groups, whose sizes stay. Of n seeds, and of n images of a group, n - 1 are drawn, which makes the
bootstrap's variance of a mean unbiased for few of them (Rao & Wu 1988).

Shapes: S seeds, N test images, G groups, R draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from minority.downstream.accuracy import METRIC_PHRASES
from minority.downstream.data import Float64, Int64, LabelledImages
from minority.downstream.predictions import Predictions
from minority.downstream.trials import ChosenBy, merit

Metric = Literal["worst_group_accuracy", "worst_class_accuracy", "balanced_accuracy", "accuracy"]
#: Arm -> seed -> predictions.
Runs = Mapping[str, Mapping[int, Predictions]]

METRICS: tuple[Metric, ...] = ("worst_group_accuracy", "worst_class_accuracy", "balanced_accuracy", "accuracy")
DRAWS = 2000
ROUNDING = 1e-12  # a difference this small is float64 arithmetic, not an effect
ARM_PHRASES = {"real": "real only", "oversampling": "real oversampled", "dfr": "DFR", "group-dro": "GroupDRO"}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much better `arm` is than `baseline` on one metric.

    Attributes:
        arm: The arm that is evaluated.
        baseline: The arm it is compared with.
        metric: Name of the metric.
        mean: Mean of arm - baseline over seeds, in [-1, 1].
        low: Lower end of the interval, NaN with one seed.
        high: Upper end of the interval, NaN with one seed.
        num_seeds: Seeds that both arms have.
        confidence: Coverage of the interval, e.g. 0.95.
    """

    arm: str
    baseline: str
    metric: str
    mean: float
    low: float
    high: float
    num_seeds: int
    confidence: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of 0; False where there is no interval."""
        return self.low > ROUNDING or self.high < -ROUNDING


def summarise(
    runs: Runs,
    truth: LabelledImages,
    *,
    metrics: Sequence[Metric] = METRICS,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Mean over seeds and interval of every arm.

    Returns:
        Columns arm, metric, mean, low, high, num_seeds.
    """
    rows = []
    for arm, by_seed in runs.items():
        predictions = list(by_seed.values())
        for metric in metrics:
            parts = _parts(truth, metric)
            values = _figure(_accuracies(predictions, truth, parts), parts, metric)
            low, high = _interval(_redrawn(predictions, truth, parts, metric), confidence=confidence)
            rows.append((arm, metric, float(values.mean()), low, high, len(predictions)))
    return pd.DataFrame(rows, columns=["arm", "metric", "mean", "low", "high", "num_seeds"])


def paired_difference(
    runs: Runs,
    arm: str,
    *,
    baseline: str,
    truth: LabelledImages,
    metric: Metric = "worst_group_accuracy",
    confidence: float = 0.95,
) -> Difference:
    """Mean of arm - baseline, with an interval over seeds and test images.

    Args:
        runs: Predictions of the test images by arm and seed.
        arm: The arm to evaluate.
        baseline: The arm to compare it with.
        truth: The test images' classes and groups.
        metric: What to compare.
        confidence: Coverage of the interval, in (0, 1).

    Raises:
        ValueError: Where an arm is missing, or the two were not run with the same seeds.
    """
    for name in (arm, baseline):
        if name not in runs:
            raise ValueError(f"there is no arm {name!r} in the results, only {', '.join(runs)}.")
    seeds = sorted(runs[arm])
    if seeds != sorted(runs[baseline]):
        lonely = sorted(set(seeds) ^ set(runs[baseline]))
        raise ValueError(
            f"a paired comparison needs the same seeds in {arm!r} and {baseline!r}; seeds {lonely} are in one only."
        )
    parts = _parts(truth, metric)
    both = [[runs[name][seed] for seed in seeds] for name in (arm, baseline)]
    evaluated, control = (_figure(_accuracies(predictions, truth, parts), parts, metric) for predictions in both)
    redrawn = [_redrawn(predictions, truth, parts, metric) for predictions in both]
    low, high = _interval(redrawn[0] - redrawn[1], confidence=confidence)
    return Difference(
        arm=arm,
        baseline=baseline,
        metric=metric,
        mean=float((evaluated - control).mean()),
        low=low,
        high=high,
        num_seeds=len(seeds),
        confidence=confidence,
    )


def group_intervals(
    by_seed: Mapping[int, Predictions],
    truth: LabelledImages,
    *,
    group_names: Sequence[str],
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Accuracy of one arm on every group of the test images, in [0, 1].

    Args:
        by_seed: The arm's predictions of N test images, by seed of the training.
        truth: Those images with their labels and groups, (N,) each.
        group_names: What each of the G groups is called.
        confidence: Level of the intervals, in (0, 1).

    Returns:
        Columns group, mean, low, high, images; groups without test images are left out.
    """
    predictions, parts = list(by_seed.values()), truth.groups
    accuracies = _accuracies(predictions, truth, parts)  # (S, groups that are there)
    redrawn = _redrawn_accuracies(predictions, truth, parts)  # (R, groups that are there)
    rows = []
    for column, group in enumerate(np.unique(parts)):
        low, high = _interval(redrawn[:, :, column].mean(axis=1), confidence=confidence)
        rows.append((group_names[group], float(accuracies[:, column].mean()), low, high, int((parts == group).sum())))
    return pd.DataFrame(rows, columns=["group", "mean", "low", "high", "images"])


def choose_arm(runs: Runs, validation: LabelledImages, *, num_groups: int, by: ChosenBy = "worst_group") -> str:
    """The arm that does best on the validation split; ties as among trials (`trials.choose_trial`).

    Args:
        runs: Predictions of the validation images by arm and tuning seed, each arm at its chosen trial.
        validation: Those images.
        num_groups: G.
        by: What decides.

    Raises:
        ValueError: There is no arm.
    """
    if not runs:
        raise ValueError("there is no arm to choose from.")
    return max(runs, key=lambda arm: merit(list(runs[arm].values()), validation, num_groups=num_groups, by=by))


def verdict(difference: Difference, *, name_metric: bool = True) -> str:
    """Say a difference in one sentence, in points (hundredths), without calling noise a gain.

    For example "+4.1 points worst-group accuracy (2.0 ... 6.2) against real only".

    Args:
        difference: What was found.
        name_metric: False leaves the unit and the metric's name out, where they were named before.
    """
    claim = f"{_points(difference.mean):+.1f}"
    if name_metric:
        claim += f" points {METRIC_PHRASES.get(difference.metric, difference.metric.replace('_', ' '))}"
    baseline = ARM_PHRASES.get(difference.baseline, difference.baseline)
    if np.isnan(difference.low):
        return f"{claim} (one seed, so no interval) against {baseline}"
    doubt = "" if difference.excludes_zero else ", an interval that does not exclude 0"
    return f"{claim} ({_points(difference.low):.1f} ... {_points(difference.high):.1f}) against {baseline}{doubt}"


def _points(share: float) -> float:
    return round(100 * share, 1) + 0.0  # + 0.0 turns -0.0 into 0.0


def _parts(truth: LabelledImages, metric: Metric) -> Int64:
    return truth.groups if metric == "worst_group_accuracy" else truth.labels


def _figure(accuracies: Float64, parts: Int64, metric: Metric) -> Float64:
    """The metric from accuracies (..., parts that are there)."""
    if metric in ("worst_group_accuracy", "worst_class_accuracy"):
        return np.asarray(accuracies.min(axis=-1))
    if metric == "balanced_accuracy":
        return np.asarray(accuracies.mean(axis=-1))
    _, sizes = np.unique(parts, return_counts=True)
    return np.asarray(accuracies @ (sizes / sizes.sum()))


def _accuracies(by_seed: Sequence[Predictions], truth: LabelledImages, parts: Int64) -> Float64:
    """(S, parts that are there)."""
    right = np.stack([predictions.predicted == truth.labels for predictions in by_seed])
    return np.stack([right[:, parts == part].mean(axis=1) for part in np.unique(parts)], axis=1)


def _redrawn(predictions: Sequence[Predictions], truth: LabelledImages, parts: Int64, metric: Metric) -> Float64:
    """The metric's mean over the redrawn seeds, (R,); NaN where there is one seed."""
    if len(predictions) < 2:
        return np.full(DRAWS, np.nan)
    figures = _figure(_redrawn_accuracies(predictions, truth, parts, redraw_seeds=False), parts, metric)  # (R, S)
    rng = np.random.default_rng([1, len(predictions)])
    seeds = rng.integers(len(predictions), size=(DRAWS, len(predictions) - 1))
    return np.asarray(np.take_along_axis(figures, seeds, axis=1).mean(axis=1))


def _redrawn_accuracies(
    by_seed: Sequence[Predictions], truth: LabelledImages, parts: Int64, *, redraw_seeds: bool = True
) -> Float64:
    """(R, S, parts that are there), or with redrawn seeds (R, S - 1 or 1, ...)."""
    right = np.stack([predictions.predicted == truth.labels for predictions in by_seed]).astype(np.float32)
    accuracies = np.empty((DRAWS, len(by_seed), len(np.unique(parts))))
    for column, part in enumerate(np.unique(parts)):
        members = np.flatnonzero(parts == part)
        accuracies[:, :, column] = _weights(len(members), column) @ right[:, members].T
    if not redraw_seeds or len(by_seed) < 2:
        return accuracies
    seeds = np.random.default_rng([1, len(by_seed)]).integers(len(by_seed), size=(DRAWS, len(by_seed) - 1))
    return np.asarray(np.take_along_axis(accuracies, seeds[:, :, None], axis=1))


@lru_cache(maxsize=64)
def _weights(count: int, column: int) -> NDArray[np.float32]:
    """Weights (R, count) of a group's images in every draw; rows sum to 1. The same for all arms."""
    drawn = max(1, count - 1)
    rng = np.random.default_rng([0, column, count])
    return (rng.multinomial(drawn, np.full(count, 1 / count), size=DRAWS) / drawn).astype(np.float32)


def _interval(values: Float64, *, confidence: float) -> tuple[float, float]:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}.")
    if np.isnan(values).any():
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
