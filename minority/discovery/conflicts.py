"""Conflicting images: those whose label the biased models together get wrong.

How many they are is not asked of anybody: the models' mean probability of another class is larger than that of the
label, or it is not. A biased model goes by what gives the class away in most images; an image that it has not seen, and
takes for another class, lacks that or has another class's. It may also be a hard image or a wrong label: who looks at
the contact sheets can tell, and no figure here can.

Shapes: N images, K classes, R models.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minority.discovery.biased_models import Answers
from minority.downstream.data import Bool, Float64, Int64
from minority.downstream.identification import errors_of, losses_of

TYPICAL, REST = "typical", "taken for others"


@dataclass(frozen=True, eq=False)
class Conflicts:
    """What biased models say of a set of images.

    Attributes:
        taken_for: (N,) class that they take each image for, by their mean probabilities.
        conflicting: (N,) whether that is another than the label.
        loss: (N,) cross-entropy of the mean probabilities, in nats; >= 0.
        votes: (N,) share of the models that are asked about an image and take it for another class, in [0, 1].
    """

    taken_for: Int64
    conflicting: Bool
    loss: Float64
    votes: Float64


def conflicts_of(answers: Sequence[Float64], labels: Int64) -> Conflicts:
    """Put the models' answers together.

    Args:
        answers: R times (N, K) probabilities; a row of NaN where a model is not asked.
        labels: (N,) classes.

    Raises:
        ValueError: An image was put to no model.
    """
    asked = np.stack([~np.isnan(probabilities).any(axis=1) for probabilities in answers])  # (R, N)
    if len(labels) and not asked.any(axis=0).all():
        raise ValueError(f"{int((~asked.any(axis=0)).sum())} images were put to no model; ask every fold's model.")
    counts = np.maximum(asked.sum(axis=0), 1)
    mean = np.nansum(np.stack(answers), axis=0) / counts[:, None]
    wrong = np.stack([errors_of(np.nan_to_num(probabilities), labels) for probabilities in answers]) & asked
    return Conflicts(
        taken_for=mean.argmax(axis=1).astype(np.int64),
        conflicting=errors_of(mean, labels),
        loss=losses_of(mean, labels),
        votes=wrong.sum(axis=0) / counts,
    )


def of_training(answers: Sequence[Answers], labels: Int64) -> Conflicts:
    """Of the training images, each by the models that have not seen it."""
    return conflicts_of([answer.train for answer in answers], labels)


def of_others(answers: Sequence[Answers], labels: Int64) -> Conflicts:
    """Of the other images, each by all models."""
    return conflicts_of([answer.others for answer in answers], labels)


def clusters_of(conflicts: Conflicts, labels: Int64, *, class_names: Sequence[str], smallest: int) -> list[str]:
    """The cluster of every image: typical, or what conflicting images of its class are taken for.

    Args:
        conflicts: Of the same images.
        labels: (N,) classes.
        class_names: K names.
        smallest: Images that make a cluster; the conflicting ones of smaller clusters are one cluster of their class.

    Returns:
        N names.
    """
    names = [TYPICAL] * len(labels)
    for label in np.unique(labels):
        for other in range(len(class_names)):
            members = np.flatnonzero((labels == label) & conflicts.conflicting & (conflicts.taken_for == other))
            for index in members:
                names[index] = f"taken for {class_names[other]}" if len(members) >= smallest else REST
    return names


def weights_of(conflicting: Bool, labels: Int64) -> Float64:
    """Weights (N,) that give conflicting and typical images of a class one half each; every class's mean is 1.

    A class without conflicting images, or of such alone, has weight 1 throughout.
    """
    weights = np.ones(len(labels))
    for label in np.unique(labels):
        members = labels == label
        count, flagged = int(members.sum()), int((members & conflicting).sum())
        if 0 < flagged < count:
            weights[members & conflicting] = count / (2 * flagged)
            weights[members & ~conflicting] = count / (2 * (count - flagged))
    return weights
