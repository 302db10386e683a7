"""What a training set is worth downstream, with intervals: accuracy per class, and paired differences between arms.

Results are a table in long form, one row a measurement: columns arm, seed, metric, value; values are shares in
[0, 1]. The same seed in two arms means the same start weights and the same test images, so arms are compared seed by
seed: the difference within each seed, then its mean and Student's t interval over seeds. The interval covers the
chance of training alone; the test images are the same for all seeds.

Shapes: N test images, K classes.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

ROUNDING = 1e-12  # a difference this small is float64 arithmetic, not an effect
RESULT_COLUMNS = ("arm", "seed", "metric", "value")
ARM_PHRASES = {"real": "real only", "oversampled": "real oversampled"}  # other arms are called by their name
METRIC_PHRASES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "worst_class_accuracy": "worst-class accuracy",
}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How one trained classifier did on the test images.

    Attributes:
        accuracy: Share of test images classified rightly.
        balanced_accuracy: Mean recall over the classes that have test images.
        worst_class_accuracy: Lowest recall of those classes.
        worst_class: The class that has it; the first one where several do.
        recall: Recall of each of the K classes, NaN for a class without test images.
    """

    accuracy: float
    balanced_accuracy: float
    worst_class_accuracy: float
    worst_class: int
    recall: tuple[float, ...]

    def rows(self, arm: str, *, seed: int) -> pd.DataFrame:
        """The measurements as result rows: the three accuracies, and "recall_<class>" for every class tested."""
        values = {metric: getattr(self, metric) for metric in METRIC_PHRASES}
        values |= {f"recall_{label}": value for label, value in enumerate(self.recall) if not np.isnan(value)}
        return pd.DataFrame(
            [(arm, seed, metric, value) for metric, value in values.items()], columns=list(RESULT_COLUMNS)
        )


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """How much better `arm` is than `baseline` on one metric, seed by seed.

    Attributes:
        arm: The arm that is judged.
        baseline: The arm it is compared with.
        metric: Name of the metric.
        mean: Mean of arm - baseline over seeds, in [-1, 1]; 0 = no difference.
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


def evaluate(probabilities: Float64, labels: Int64) -> Evaluation:
    """Compare predictions with the truth.

    Args:
        probabilities: (N, K) class probabilities or any scores; the largest of a row is the prediction.
        labels: (N,) true classes in [0, K).

    Raises:
        ValueError: Where there are no images, shapes disagree, a probability is NaN or a label is out of range.
    """
    if probabilities.ndim != 2 or len(probabilities) == 0 or labels.shape != (len(probabilities),):
        raise ValueError(
            f"evaluation needs probabilities (N, K) and labels (N,) with N at least 1, got {probabilities.shape} and "
            f"{labels.shape}."
        )
    if np.isnan(probabilities).any():
        raise ValueError("probabilities contain NaN; the classifier's training diverged, lower its learning rate.")
    num_classes = probabilities.shape[1]
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"labels must lie in [0, {num_classes}), got {labels.min()} ... {labels.max()}.")
    hits = probabilities.argmax(axis=1) == labels
    counts = np.bincount(labels, minlength=num_classes)
    recall = np.full(num_classes, np.nan)
    np.divide(np.bincount(labels, weights=hits, minlength=num_classes), counts, out=recall, where=counts > 0)
    worst = int(np.nanargmin(recall))
    return Evaluation(
        accuracy=float(hits.mean()),
        balanced_accuracy=float(np.nanmean(recall)),
        worst_class_accuracy=float(recall[worst]),
        worst_class=worst,
        recall=tuple(recall.tolist()),
    )


def summarise(results: pd.DataFrame, *, confidence: float = 0.95) -> pd.DataFrame:
    """Mean and t interval over seeds of every metric of every arm.

    Args:
        results: Rows of (arm, seed, metric, value).
        confidence: Coverage of the intervals, in (0, 1).

    Returns:
        One row for each arm and metric, in order of first appearance: arm, metric, mean, low, high, num_seeds. With
        one seed low and high are NaN.

    Raises:
        ValueError: Where a column or a value is missing, or a measurement stands twice.
    """
    _check_results(results)
    rows = []
    for (arm, metric), group in results.groupby(["arm", "metric"], sort=False):
        mean, low, high = _mean_and_interval(group["value"].to_numpy(dtype=np.float64), confidence=confidence)
        rows.append((arm, metric, mean, low, high, len(group)))
    return pd.DataFrame(rows, columns=["arm", "metric", "mean", "low", "high", "num_seeds"])


def paired_difference(
    results: pd.DataFrame, arm: str, *, baseline: str, metric: str, confidence: float = 0.95
) -> PairedDifference:
    """Mean of arm - baseline over seeds, with the interval of the paired t test.

    Args:
        results: Rows of (arm, seed, metric, value).
        arm: The arm to judge.
        baseline: The arm to compare it with.
        metric: The metric to compare on.
        confidence: Coverage of the interval, in (0, 1).

    Raises:
        ValueError: Where the table is unsound (as in `summarise`), either arm lacks the metric, or the two were not
            run with the same seeds.
    """
    _check_results(results)
    treated = _values_by_seed(results, arm, metric=metric)
    control = _values_by_seed(results, baseline, metric=metric)
    if set(treated.index) != set(control.index):
        lonely = sorted(set(treated.index) ^ set(control.index))
        raise ValueError(
            f"a paired comparison needs the same seeds in {arm!r} and {baseline!r}; seeds {lonely} are in one only."
        )
    differences: Float64 = np.asarray(treated - control.reindex(treated.index), dtype=np.float64)
    mean, low, high = _mean_and_interval(differences, confidence=confidence)
    return PairedDifference(
        arm=arm,
        baseline=baseline,
        metric=metric,
        mean=mean,
        low=low,
        high=high,
        num_seeds=len(differences),
        confidence=confidence,
    )


def verdict(difference: PairedDifference) -> str:
    """Say a difference in one sentence, in points (hundredths), without calling noise a gain.

    For example "+14.2 points worst-class accuracy (8.1 ... 20.3, 95% interval over 5 seeds) against real only".
    """
    metric = METRIC_PHRASES.get(difference.metric, difference.metric.replace("_", " "))
    baseline = ARM_PHRASES.get(difference.baseline, difference.baseline)
    claim = f"{_points(difference.mean):+.1f} points {metric}"
    if difference.num_seeds < 2:
        return f"{claim} (one seed, so no interval) against {baseline}"
    interval = f"{_points(difference.low):.1f} ... {_points(difference.high):.1f}"
    coverage = f"{100 * difference.confidence:g}% interval over {difference.num_seeds} seeds"
    doubt = "" if difference.excludes_zero else "; the interval does not exclude 0"
    return f"{claim} ({interval}, {coverage}) against {baseline}{doubt}"


def _points(share: float) -> float:
    return round(100 * share, 1) + 0.0  # + 0.0 turns -0.0 into 0.0


def _mean_and_interval(values: Float64, *, confidence: float) -> tuple[float, float, float]:
    """Mean, and Student's t interval of the mean; NaN ends with one value, no width where all values agree."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}.")
    mean = float(values.mean())
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    reach = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values))
    return mean, mean - reach, mean + reach


def _values_by_seed(results: pd.DataFrame, arm: str, *, metric: str) -> "pd.Series[float]":
    chosen = results[(results["arm"] == arm) & (results["metric"] == metric)]
    if chosen.empty:
        measured = sorted(set(zip(results["arm"], results["metric"], strict=True)))
        raise ValueError(f"there is no {metric!r} of arm {arm!r} in the results, only {measured}.")
    return chosen.set_index("seed")["value"]


def _check_results(results: pd.DataFrame) -> None:
    missing = [column for column in RESULT_COLUMNS if column not in results.columns]
    if missing:
        raise ValueError(f"results need the columns {', '.join(RESULT_COLUMNS)}; missing: {', '.join(missing)}.")
    if results["value"].isna().any():
        arm, seed, metric = results[results["value"].isna()].iloc[0][["arm", "seed", "metric"]]
        raise ValueError(f"{metric!r} of arm {arm!r}, seed {seed} has no value; measure it again or drop its seed.")
    twice = results[results.duplicated(["arm", "seed", "metric"])]
    if not twice.empty:
        arm, seed, metric = twice.iloc[0][["arm", "seed", "metric"]]
        raise ValueError(f"{metric!r} of arm {arm!r}, seed {seed} stands twice in the results; keep one of them.")
