"""Which candidates become training data: rare AND valid AND new AND with their label kept, up to a quota.

Low likelihood alone is also what garbage has, so every candidate is evaluated against the real training split in
feature space, and where asked by a discriminator. The verdicts of one candidate do not depend on any other candidate;
only the choice does (minority/selection/choice.py). There are two filters behind one contract (filter_contract.py), and
the settings say which: one with fixed floors (fixed_filter.py), and one whose floors come from rare real images
(held_out_filter.py). What is rare, valid and of its label is decided there, and what a near-copy is in near_copies.py.

Shapes: N training images, M candidates, D features, K classes.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from minority.features.pixel_features import pixel_features
from minority.neighbours.pairwise import Features
from minority.neighbours.reference import RealReference
from minority.runtime.image_arrays import Images
from minority.selection.discriminator import Discriminator
from minority.selection.filter_contract import CandidateFilter, Verdicts
from minority.selection.fixed_filter import FixedFloorFilter
from minority.selection.held_out_filter import HeldOutFloorFilter, Mirrored
from minority.selection.settings import HeldOutRules, SelectionSettings


def build_filter(
    features: Features,
    labels: NDArray[np.int64],
    *,
    settings: SelectionSettings,
    images: Images | None = None,
    extract: Callable[[NDArray[np.uint8]], Features] = pixel_features,
    discriminator: Discriminator | None = None,
    device: torch.device | str = "cpu",
    reference: RealReference | None = None,
    mirrored: Mirrored | None = None,
) -> CandidateFilter:
    """The filter that the settings ask for, fitted on the real training split.

    Args:
        features: (N, D) features of the training images.
        labels: (N,) their labels.
        settings: The thresholds.
        images: (N, H, W, C) uint8, the training images themselves; needed for `settings.held_out`, but for what is
            given below.
        extract: What made the features; needed for `settings.held_out` unless they are pixels.
        discriminator: Trained on these images by `train_discriminator`; None trains one where `settings.held_out` asks
            for it.
        device: Where distances and the discriminator are computed.
        reference: Fitted on the features; None fits one that compares all pairs.
        mirrored: Fitted on the mirrored images' features; None fits one where `settings.held_out` asks for it.

    Raises:
        ValueError: The features cannot be a reference, or the images are needed and missing.
    """
    rules = settings.held_out
    reference = reference or RealReference.fit(features, k=settings.neighbours, device=device)
    if rules is None:
        return FixedFloorFilter(reference, labels, settings=settings)
    if images is None:
        raise ValueError("SelectionSettings.held_out needs the training images beside their features, got none.")
    if mirrored is None:
        mirrored = Mirrored.fit(extract(np.ascontiguousarray(images[:][:, :, ::-1])), reference)
    if discriminator is None:
        discriminator = train_discriminator(images, labels, rules=rules, device=device)
    return HeldOutFloorFilter(
        reference, labels, settings=settings, rules=rules, mirrored=mirrored, discriminator=discriminator
    )


def train_discriminator(
    images: Images, labels: NDArray[np.int64], *, rules: HeldOutRules, device: torch.device | str = "cpu"
) -> Discriminator:
    """Train the discriminator of the filter with held-out floors.

    Args:
        images: (N, H, W, C) uint8, the training images.
        labels: (N,) integers in [0, K).
        rules: Whose `discriminator` says folds, negatives and budget.
        device: Where to train.

    Raises:
        ValueError: There are fewer than two images outside a fold.
    """
    labels = np.asarray(labels)
    return Discriminator.train(
        images, labels, num_classes=int(labels.max()) + 1, settings=rules.discriminator, device=device
    )


__all__ = ["CandidateFilter", "HeldOutRules", "SelectionSettings", "Verdicts", "build_filter", "train_discriminator"]
