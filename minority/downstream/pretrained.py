"""The arms that use a pretrained backbone itself: its features, its encoder, its answers about classes.

    linear_probe  class-balanced logistic regression on its bottleneck features; on validation features it is DFR
    zero_shot     the class under which it predicts an image's noise best (Li et al. 2023); nothing is fitted
    fine_tuned    its encoder and a new head, trained on
    distilled     a small network learns its zero-shot answers about augmented training images (Hinton et al. 2015)

The last two are trainings like any other (training.py); the first two are solved here.

Shapes: N images, D features, K classes.
"""

from typing import Literal

import numpy as np
import torch

from minority.downstream.arms import Arm
from minority.downstream.backbone_outputs import BackboneReading, Float32, zero_shot_probabilities
from minority.downstream.data import DownstreamData, Float64, Int64, LabelledImages
from minority.downstream.last_layer import refit_last_layer
from minority.downstream.predictions import Predictions

_FOLDS = 2


def reading_of(arm: Arm, data: DownstreamData) -> BackboneReading:
    """What the backbone made of the images.

    Raises:
        ValueError: Nothing was read, but the arm needs it.
    """
    if data.reading is None:
        raise ValueError(f"arm {arm.name!r} needs a pretrained backbone's reading of the images; there is none.")
    return data.reading


def answer(arm: Arm, data: DownstreamData, *, part: Literal["validation", "test"]) -> Predictions:
    """Predict one part by an arm that trains no network: a linear probe, or the zero-shot classifier.

    Args:
        arm: The recipe, its strength set.
        data: The images, with a reading of them.
        part: What to predict.

    Raises:
        ValueError: The reading lacks what the arm needs.
    """
    reading = reading_of(arm, data)
    if arm.learner == "zero_shot":
        return Predictions.of(
            zero_shot_probabilities(
                reading.errors_of(part),
                dimensions=reading.dimensions,
                sharpness=arm.sharpness,
                share_of_levels=arm.share_of_levels,
            )
        )
    features = reading.features_of(part)
    if not arm.last_layer:
        fitted_on, labels, groups = _probe_data(arm, data, reading)
        return Predictions.of(_probe(arm, data, fitted_on, labels, groups, features))
    held: LabelledImages = data.validation
    probabilities = np.zeros((len(features), len(data.class_names)))
    fold = fold_of(held.groups)
    folds = range(_FOLDS) if part == "validation" else (-1,)
    for i in folds:
        chosen = np.flatnonzero(fold != i)
        lent = np.flatnonzero(~np.isin(data.train.groups, held.groups[chosen]))
        fitted_on = np.concatenate([reading.features_of("validation")[chosen], reading.features_of("train")[lent]])
        labels = np.concatenate([held.labels[chosen], data.train.labels[lent]])
        groups = np.concatenate([held.groups[chosen], data.train.groups[lent]])
        asked = np.flatnonzero(fold == i) if part == "validation" else np.arange(len(features))
        probabilities[asked] = _probe(arm, data, fitted_on, labels, groups, features[asked])
    return Predictions.of(probabilities)


def distillation_set(arm: Arm, data: DownstreamData) -> tuple[LabelledImages, Float64]:
    """What a distilled network learns from.

    Returns:
        The augmented training images, and the teacher's answers (N, K) about them, rows sum to 1.

    Raises:
        ValueError: The backbone takes no label, or was not asked.
    """
    reading = reading_of(arm, data)
    if reading.augmented is None:
        raise ValueError(f"arm {arm.name!r} needs the backbone's answers about augmented images; there are none.")
    answers = zero_shot_probabilities(
        reading.errors_of("augmented"),
        dimensions=reading.dimensions,
        sharpness=arm.sharpness,
        share_of_levels=arm.share_of_levels,
    )
    return reading.augmented, answers


def fold_of(groups: Int64) -> Int64:
    """(N,) 0 or 1: every group's images in turns, so that both halves have all groups of two images or more."""
    fold = np.zeros(len(groups), dtype=np.int64)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        fold[members] = np.arange(len(members)) % _FOLDS
    return fold


def _probe_data(arm: Arm, data: DownstreamData, reading: BackboneReading) -> tuple[Float32, Int64, Int64]:
    """Features, labels and groups that a probe is fitted on: real training images, and the arm's synthetic ones."""
    features, labels, groups = [reading.features_of("train")], [data.train.labels], [data.train.groups]
    if arm.source is not None:
        drawn = data.synthetic[arm.source]
        features.append(reading.features_of(arm.source))
        labels.append(drawn.labels)
        groups.append(drawn.groups)
    return np.concatenate(features), np.concatenate(labels), np.concatenate(groups)


def _probe(
    arm: Arm, data: DownstreamData, fitted_on: Float32, labels: Int64, groups: Int64, features: Float32
) -> Float64:
    layer = refit_last_layer(
        torch.as_tensor(fitted_on), labels, groups, num_classes=len(data.class_names), ridge=arm.ridge
    )
    with torch.no_grad():
        probabilities: Float64 = layer(torch.as_tensor(features)).double().softmax(dim=1).numpy()
    return probabilities
