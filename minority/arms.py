"""Arms: the training sets that are compared downstream.

Every arm is trained with the same classifier, steps, batch size and augmentation. What differs is what is drawn:

    real               the real images as they are, long tail and all
    oversampled        the same images, drawn so that every class comes equally often: the non-generative opponent
    real+<source>      the real images and synthetic ones, drawn evenly; classes are balanced only as far as the
                       synthetic images balance them

Shapes: N images, H x W pixels, C channels, K classes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from minority.classifier import ClassifierSettings, predict, train_classifier
from minority.gains import Evaluation, evaluate

UInt8 = NDArray[np.uint8]
Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Arm:
    """One training set.

    Attributes:
        name: "real", "oversampled" or "real+<source>".
        images: (N, H, W, C) uint8.
        labels: (N,) int64 classes.
        sampling_weights: (N,) odds of drawing each image, or None for all alike.
    """

    name: str
    images: UInt8
    labels: Int64
    sampling_weights: Float64 | None = None


def build_arms(
    real_images: UInt8, real_labels: Int64, *, synthetic: Mapping[str, tuple[UInt8, Int64]], num_classes: int
) -> list[Arm]:
    """Build the arms: real, oversampled, and one real+<source> for every source of synthetic images.

    Args:
        real_images: (N, H, W, C) uint8 training images.
        real_labels: (N,) their classes in [0, num_classes).
        synthetic: Images and labels by source, e.g. {"plain": (...), "minority": (...)}. A source may be empty: its
            arm is then the real one.
        num_classes: K.

    Raises:
        ValueError: Where a class has no real image, shapes disagree, or a synthetic label is no class.
    """
    _check_images(real_images, real_labels, source="real", image_shape=real_images.shape[1:], num_classes=num_classes)
    empty = np.flatnonzero(np.bincount(real_labels, minlength=num_classes) == 0).tolist()
    if empty:
        raise ValueError(f"classes {empty} have no real training image; give each at least one or leave it out.")
    arms = [
        Arm("real", real_images, real_labels),
        Arm("oversampled", real_images, real_labels, balancing_weights(real_labels, num_classes=num_classes)),
    ]
    for source, (images, labels) in synthetic.items():
        _check_images(images, labels, source=source, image_shape=real_images.shape[1:], num_classes=num_classes)
        arms.append(Arm(f"real+{source}", np.concatenate([real_images, images]), np.concatenate([real_labels, labels])))
    return arms


def balancing_weights(labels: Int64, *, num_classes: int) -> Float64:
    """Odds (N,) that draw every class of `labels` equally often; they sum to 1."""
    counts = np.bincount(labels, minlength=num_classes)
    weights: Float64 = 1.0 / (counts[labels] * np.count_nonzero(counts))
    return weights


def run_arm(
    arm: Arm,
    seed: int,
    *,
    test_images: UInt8,
    test_labels: Int64,
    num_classes: int,
    settings: ClassifierSettings,
    device: str = "cpu",
) -> Evaluation:
    """Train the classifier on one arm with one seed and judge it on the test images.

    Args:
        arm: The training set.
        seed: Decides all that is random in the training. Arms are compared seed by seed.
        test_images: (M, H, W, C) uint8 real images that no arm has seen.
        test_labels: (M,) their classes.
        num_classes: K.
        settings: The budget, the same for all arms.
        device: Where to train.
    """
    model = train_classifier(
        arm.images,
        arm.labels,
        num_classes=num_classes,
        settings=settings,
        seed=seed,
        sampling_weights=arm.sampling_weights,
        device=device,
    )
    return evaluate(predict(model, test_images), test_labels)


def compare_arms(
    arms: Iterable[Arm],
    seeds: Iterable[int],
    *,
    test_images: UInt8,
    test_labels: Int64,
    num_classes: int,
    settings: ClassifierSettings,
    device: str = "cpu",
) -> pd.DataFrame:
    """Run every arm with every seed; see `run_arm` for the arguments.

    Returns:
        Result rows (arm, seed, metric, value) for `minority.gains`.
    """
    seeds = list(seeds)
    evaluations = [
        run_arm(
            arm,
            seed,
            test_images=test_images,
            test_labels=test_labels,
            num_classes=num_classes,
            settings=settings,
            device=device,
        ).rows(arm.name, seed=seed)
        for arm in arms
        for seed in seeds
    ]
    return pd.concat(evaluations, ignore_index=True)


def _check_images(images: UInt8, labels: Int64, *, source: str, image_shape: tuple[int, ...], num_classes: int) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != image_shape:
        raise ValueError(
            f"{source} images must be uint8 (N, H, W, C) of one shape {image_shape}, got {images.dtype} {images.shape}."
        )
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{source} labels must be {len(images)} integers, got {labels.dtype} {labels.shape}.")
    if len(labels) and (labels.min() < 0 or labels.max() >= num_classes):
        raise ValueError(f"{source} labels must lie in [0, {num_classes}), got {labels.min()} ... {labels.max()}.")
