"""Accuracy by class and by group.

Shapes: N images, K classes, G groups.
"""

import numpy as np

from minority.downstream.data import Bool, Float64, Int64, LabelledImages

METRIC_PHRASES = {
    "worst_group_accuracy": "worst-group accuracy",
    "worst_class_accuracy": "worst-class accuracy",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
}


def class_recall(predicted: Int64, labels: Int64, *, num_classes: int) -> Float64:
    """Share of every class that is recognised, (K,); NaN for a class without images."""
    return _share_by(labels, predicted == labels, count=num_classes)


def group_accuracy(predicted: Int64, truth: LabelledImages, *, num_groups: int) -> Float64:
    """Share of every group that is classified rightly, (G,); NaN for a group without images."""
    return _share_by(truth.groups, predicted == truth.labels, count=num_groups)


def _share_by(parts: Int64, right: Bool, *, count: int) -> Float64:
    sizes = np.bincount(parts, minlength=count)
    shares = np.full(count, np.nan)
    np.divide(np.bincount(parts, weights=right, minlength=count), sizes, out=shares, where=sizes > 0)
    return shares
