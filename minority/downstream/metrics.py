"""How well a classifier does, and for whom: accuracy by class and group, fairness and calibration.

Results are a table in long form, one row a measurement: arm, seed, metric, group, value. `group` names the class, group
or attribute that a figure belongs to and is empty for the whole test set. Shares lie in [0, 1].

Differences and ratios between values of an attribute are those of fairlearn, class by class (one against the rest), and
of these the worst; with two classes both say the same.

Shapes: N images, K classes, G groups.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from minority.downstream.accuracy import class_recall, group_accuracy
from minority.downstream.data import DownstreamData, Int64, LabelledImages
from minority.downstream.predictions import Predictions

RESULT_COLUMNS = ("arm", "seed", "metric", "group", "value")
CALIBRATION_BINS = 15


def measure(
    predictions: Predictions,
    truth: LabelledImages,
    *,
    class_names: Sequence[str],
    group_names: Sequence[str],
    sensitive: Mapping[str, Sequence[str | None]] | None = None,
) -> pd.DataFrame:
    """All figures of one classifier.

    Args:
        predictions: What it said.
        truth: The images' classes and groups.
        class_names: K names.
        group_names: G names.
        sensitive: N values of every attribute by which fairness is evaluated; images without a value (None) take no
            part.

    Returns:
        Columns metric, group, value. Figures that are not defined, such as those of a class without images, are left
        out.

    Raises:
        ValueError: Where there are no images, or not one prediction for each.
    """
    if len(truth) == 0 or len(predictions) != len(truth):
        raise ValueError(f"metrics need one prediction an image, got {len(predictions)} for {len(truth)} images.")
    said, labels = predictions.predicted, truth.labels
    recall = class_recall(said, labels, num_classes=len(class_names))
    by_group = group_accuracy(said, truth, num_groups=len(group_names))
    present = np.unique(labels)
    f1 = f1_score(labels, said, labels=range(len(class_names)), average=None, zero_division=0.0)
    rows: list[tuple[str, str, float]] = [
        ("accuracy", "", float((said == labels).mean())),
        ("balanced_accuracy", "", float(np.nanmean(recall))),
        ("worst_class_accuracy", "", float(np.nanmin(recall))),
        ("worst_group_accuracy", "", float(np.nanmin(by_group))),
        ("macro_f1", "", float(f1[present].mean())),
        ("calibration_error", "", calibration_error(predictions, labels)),
    ]
    rows += [("recall", class_names[label], float(recall[label])) for label in present]
    rows += [("f1", class_names[label], float(f1[label])) for label in present]
    for group in np.unique(truth.groups):
        members = np.flatnonzero(truth.groups == group)
        error = calibration_error(Predictions(said[members], predictions.confidence[members]), labels[members])
        rows += [
            ("group_accuracy", group_names[group], float(by_group[group])),
            ("group_calibration_error", group_names[group], error),
        ]
    for attribute, values in (sensitive or {}).items():
        rows += _fairness_rows(said, labels, attribute, values)
    return pd.DataFrame(rows, columns=["metric", "group", "value"])


def results_table(runs: Mapping[tuple[str, int], Predictions], data: DownstreamData) -> pd.DataFrame:
    """The figures of many classifiers on the test images.

    Args:
        runs: Predictions of the test images by (arm, seed).
        data: The images.

    Returns:
        Columns RESULT_COLUMNS.
    """
    tables = [
        measure(
            predictions,
            data.test,
            class_names=data.class_names,
            group_names=data.group_names,
            sensitive=data.sensitive,
        ).assign(arm=arm, seed=seed)
        for (arm, seed), predictions in runs.items()
    ]
    if not tables:
        return pd.DataFrame(columns=list(RESULT_COLUMNS))
    return pd.concat(tables, ignore_index=True)[list(RESULT_COLUMNS)]


def calibration_error(predictions: Predictions, labels: Int64, *, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error (Guo et al. 2017): how far confidence is from accuracy, over bins of equal width."""
    bin_of = np.clip((predictions.confidence * bins).astype(np.int64), 0, bins - 1)
    right = (predictions.predicted == labels).astype(np.float64)
    gaps = np.bincount(bin_of, weights=right - predictions.confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def _fairness_rows(
    said: Int64, labels: Int64, attribute: str, values: Sequence[str | None]
) -> list[tuple[str, str, float]]:
    known = np.array([value is not None for value in values])
    if len({value for value in values if value is not None}) < 2:
        return []
    said, labels = said[known], labels[known]
    kinds = np.array([value for value in values if value is not None])
    rows = [(metric, attribute, value) for metric, value in _disparities(said, labels, kinds).items()]
    for kind in np.unique(kinds):
        members = kinds == kind
        score = f1_score(
            labels[members], said[members], labels=np.unique(labels[members]), average="macro", zero_division=0.0
        )
        rows.append(("attribute_f1", f"{attribute}={kind}", float(score)))
        rows.append(("attribute_accuracy", f"{attribute}={kind}", float((labels[members] == said[members]).mean())))
    return rows


def _disparities(said: Int64, labels: Int64, kinds: NDArray[np.str_]) -> dict[str, float]:
    """Parity and odds between values of an attribute, each for the class that is worst off."""
    values, value_of = np.unique(kinds, return_inverse=True)
    num_classes = int(max(said.max(), labels.max())) + 1
    counts = np.zeros((len(values), num_classes, num_classes))  # by value, true class and class that it was said to be
    np.add.at(counts, (value_of, labels, said), 1)
    of_class, total = counts.sum(2), counts.sum((1, 2))[:, None]
    # A class that some value of the attribute has no image of has no rate there, and no odds to equalise.
    evaluated = ((of_class > 0) & (of_class < total)).all(0)
    if not evaluated.any():
        return {}
    of_class, called = of_class[:, evaluated], counts.sum(1)[:, evaluated]
    hit = counts.diagonal(axis1=1, axis2=2)[:, evaluated]
    selected, found, mistaken = called / total, hit / of_class, (called - hit) / (total - of_class)
    odds = np.where(np.isnan(_ratio(found)), np.nan, np.fmin(_ratio(found), _ratio(mistaken)))
    gaps = {
        "demographic_parity_difference": (np.max, _difference(selected)),
        "demographic_parity_ratio": (np.min, _ratio(selected)),
        "equalized_odds_difference": (np.max, np.maximum(_difference(found), _difference(mistaken))),
        # No rate above 0 anywhere has no ratio; fairlearn leaves it out only where it is that of the mistaken.
        "equalized_odds_ratio": (np.min, odds),
    }
    known = {metric: (worst, gap[~np.isnan(gap)]) for metric, (worst, gap) in gaps.items()}
    return {metric: float(worst(gap)) for metric, (worst, gap) in known.items() if len(gap)}


def _difference(rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Highest less lowest rate of the values (rows), by class."""
    return rates.max(0) - rates.min(0)


def _ratio(rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lowest by highest rate of the values (rows), by class; NaN where no rate is above 0."""
    highest = rates.max(0)
    return np.divide(rates.min(0), highest, out=np.full_like(highest, np.nan), where=highest > 0)
