"""Biased models: trained to learn what is easy, and asked what they make of images that they have not seen.

Shapes: N training images, M others, K classes, R rounds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from minority.discovery.settings import DiscoverySettings
from minority.downstream.arms import Arm
from minority.downstream.data import DownstreamData, Float64, Int64, LabelledImages
from minority.downstream.training import probabilities_and_features, train

_FOLD_STREAM = 11  # of the random numbers that divide classes into folds


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One training: the model's round, and the fold that it does not see; None where it sees all or none."""

    round: int
    fold: int | None

    @property
    def key(self) -> str:
        """A name for files."""
        return f"{self.round:03d}" + ("" if self.fold is None else f"-{self.fold}")


@dataclass(frozen=True, eq=False)
class Answers:
    """What one model says.

    Attributes:
        train: (N, K) probabilities of the training images; NaN where the model may not be asked.
        others: (M, K) of the other images.
    """

    train: Float64
    others: Float64


def planned_fits(settings: DiscoverySettings) -> list[Fit]:
    """The trainings of a search."""
    folds: Sequence[int | None] = range(settings.folds) if settings.method == "cross_fitted" else (None,)
    return [Fit(round=i, fold=fold) for i in range(settings.models) for fold in folds]


def folds_of(labels: Int64, *, folds: int, seed: int) -> Int64:
    """(N,) the fold of every image; every class is spread evenly over them by a draw of the seed.

    Raises:
        ValueError: A class has fewer images than there are folds.
    """
    rng = np.random.default_rng([seed, _FOLD_STREAM])
    fold = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        if len(members) < folds:
            raise ValueError(
                f"class {label} has {len(members)} training images for {folds} folds; set discovery.folds lower, or "
                "discovery.method to early."
            )
        fold[members] = np.arange(len(members)) % folds
    return fold


def fit_and_ask(
    fit: Fit,
    images: LabelledImages,
    others: LabelledImages,
    *,
    num_classes: int,
    settings: DiscoverySettings,
    samples: LabelledImages | None = None,
    device: str = "cpu",
) -> Answers:
    """Train one biased model and ask it. Groups and attributes of the images are not looked at.

    Args:
        fit: Which one.
        images: The training images.
        others: Images of other parts, which no model is trained on.
        num_classes: K, at least 2.
        settings: The search.
        samples: Plain samples of a backbone, for the amplifier; every class at least once.
        device: Where to train.

    Raises:
        ValueError: A class has too few images for the folds, or the amplifier no samples.
    """
    seed = settings.seed + 1000 * fit.round + (0 if fit.fold is None else 1 + fit.fold)
    asked = np.arange(len(images))
    material, steps = images, settings.budget.steps
    if settings.method == "early":
        steps = settings.early_steps
    elif settings.method == "cross_fitted":
        folds = folds_of(images.labels, folds=settings.folds, seed=settings.seed + fit.round)
        asked, material = np.flatnonzero(folds == fit.fold), images.subset(np.flatnonzero(folds != fit.fold))
    elif samples is None:
        raise ValueError("the amplifier learns from plain samples of a backbone, and there are none; draw some.")
    else:
        material = samples
    names = tuple(str(label) for label in range(num_classes))
    # By class alone: nothing of groups reaches the training, and a rare class is drawn as often as a common one.
    material = LabelledImages(material.images, material.labels, material.labels)
    network = train(
        Arm(name="biased model", draws="group_balanced", loss="generalised", q=settings.q),
        DownstreamData(train=material, validation=material, test=material, class_names=names, group_names=names),
        learning_rate=settings.budget.learning_rates[0],
        weight_decay=settings.budget.weight_decays[0],
        settings=replace(settings.budget, steps=steps),
        seed=seed,
        device=device,
    )
    answers = np.full((len(images), num_classes), np.nan)
    answers[asked] = _probabilities(network, images.subset(asked))
    return Answers(answers, _probabilities(network, others))


def _probabilities(network: torch.nn.Module, images: LabelledImages) -> Float64:
    probabilities: Float64 = probabilities_and_features(network, images)[0].cpu().numpy()  # type: ignore[arg-type]
    return probabilities
