"""A discriminator of real images and their labels: classifiers with one class more than the data, synthetic negatives.

Nearest neighbours refuse what lies far from everything real. They do not see that a blend of two real images lies
between them, close to both. The discriminator is trained on the real training split against synthetic negatives
made of it (minority/selection/negatives.py). Every member leaves one fold of the real images out, so that each real
image has an output of a member that never saw it: the scale on which candidates are evaluated.

Shapes: N training images, M candidates, K classes.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from minority.classifier import ClassifierSettings, Int64, SmallCNN, predict, train_classifier
from minority.runtime.image_arrays import Images, choose_images
from minority.runtime.progress import called
from minority.selection.negatives import make_negatives

Float64 = NDArray[np.float64]


class DiscriminatorOutput(NamedTuple):
    """What the discriminator says about images.

    Attributes:
        p_real: (M,) probability of being real.
        probabilities: (M, K) probabilities of the classes among the real ones; rows sum to 1.
    """

    p_real: Float64
    probabilities: Float64

    def of_label(self, labels: Int64) -> Float64:
        """Probability of each image's own label, (M,)."""
        return self.probabilities[np.arange(len(labels)), labels]

    def margin(self, labels: Int64) -> Float64:
        """Probability of the own label less that of the likeliest other one, (M,) in [-1, 1]; 1 for a single class."""
        others = self.probabilities.copy()
        others[np.arange(len(labels)), labels] = 0.0
        return self.of_label(labels) - others.max(axis=1)


@dataclass(frozen=True, kw_only=True)
class DiscriminatorSettings:
    """How the discriminator is trained.

    Attributes:
        folds: Members, each of which leaves one fold out, >= 2.
        mirrored_is_negative: Whether a mirrored image is a negative: true for digits, false for faces and rooms.
        classifier: Each member's budget and augmentation.
        max_images: Of a larger training split a random sample of so many is taken, negatives included the most that is
            held in memory at once; >= 2. A member sees no more images than its steps times its batch anyway.
        seed: Decides sample, folds, negatives and training.
    """

    folds: int = 3
    mirrored_is_negative: bool = True
    classifier: ClassifierSettings = field(default_factory=ClassifierSettings)
    max_images: int = 20_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_images < 2:
            raise ValueError(f"DiscriminatorSettings.max_images must be at least 2, got {self.max_images}.")
        if self.folds < 2:
            raise ValueError(f"DiscriminatorSettings.folds must be at least 2, got {self.folds}.")


@dataclass(frozen=True, eq=False)
class Discriminator:
    """An ensemble that tells real images from negatives and names their class.

    Attributes:
        members: One a fold; class K is the class of negatives.
        of_training: Outputs on the training images that it was made of, each by the member that did not see it.
        seen: Positions of those among all training images, ascending.
    """

    members: tuple[SmallCNN, ...]
    of_training: DiscriminatorOutput
    seen: Int64

    @classmethod
    def train(
        cls,
        images: Images,
        labels: Int64,
        *,
        num_classes: int,
        settings: DiscriminatorSettings,
        device: torch.device | str = "cpu",
    ) -> "Discriminator":
        """Train on the real training split: every class as often as it is in the data, negatives as often as all.

        Args:
            images: (N, H, W, C) uint8 real training images.
            labels: (N,) integers in [0, K).
            num_classes: K.
            settings: Folds, negatives and each member's budget.
            device: Where to train.

        Raises:
            ValueError: Where there are fewer than two images outside a fold.
        """
        sample = choose_images(len(images), most=settings.max_images, seed=[settings.seed, len(images)])
        images, labels = images[sample], labels[sample]
        fold = _folds(labels, count=settings.folds, seed=settings.seed)
        members, outside = [], np.zeros((len(images), num_classes + 1))
        for i in range(settings.folds):
            seen = np.flatnonzero(fold != i)
            negatives = make_negatives(
                images[seen], seed=settings.seed * settings.folds + i, mirrored=settings.mirrored_is_negative
            )
            with called(f"training the discriminator, {i + 1} of {settings.folds}"):
                member = train_classifier(
                    np.concatenate([images[seen], negatives.images]),
                    np.concatenate([labels[seen], np.full(len(negatives.images), num_classes)]),
                    num_classes=num_classes + 1,
                    settings=settings.classifier,
                    seed=settings.seed * settings.folds + i,
                    sampling_weights=np.concatenate([np.full(len(seen), 1 / len(seen)), negatives.odds]),
                    device=device,
                )
            members.append(member)
            if (fold == i).any():
                outside[fold == i] = predict(member, images[fold == i])
        return cls(members=tuple(members), of_training=_output(outside), seen=sample)

    def predict(self, images: Images) -> DiscriminatorOutput:
        """The mean output of all members on images (M, H, W, C) uint8."""
        return _output(np.mean([predict(member, images) for member in self.members], axis=0))


def _output(probabilities: Float64) -> DiscriminatorOutput:
    real = probabilities[:, :-1]
    total = real.sum(axis=1)
    return DiscriminatorOutput(p_real=total, probabilities=real / np.maximum(total, np.finfo(np.float64).tiny)[:, None])


def _folds(labels: Int64, *, count: int, seed: int) -> Int64:
    """(N,) fold of every image; each class is spread evenly."""
    rng = np.random.default_rng(seed)
    fold = np.empty(len(labels), dtype=np.int64)
    start = 0
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        fold[members] = (start + np.arange(len(members))) % count
        start += len(members)
    return fold
