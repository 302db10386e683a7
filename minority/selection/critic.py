"""A critic of realness and label: classifiers that know one class more than the data, the class of fakes.

Nearest neighbours refuse what lies far from everything real. They do not see that a blend of two real images lies
between them, close to both. The critic is trained on the real training split against fakes made of it
(minority/selection/negatives.py). Every member leaves one fold of the real images out, so that each real image has an
opinion of a member that never saw it: the scale on which candidates are judged.

Shapes: N training images, M candidates, K classes.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from minority.classifier import ClassifierSettings, Int64, SmallCNN, UInt8, predict, train_classifier
from minority.selection.negatives import make_fakes

Float64 = NDArray[np.float64]


class Opinion(NamedTuple):
    """What the critic says about images.

    Attributes:
        realness: (M,) probability of not being a fake.
        probabilities: (M, K) probabilities of the classes among the real ones; rows sum to 1.
    """

    realness: Float64
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
class CriticSettings:
    """How the critic is trained.

    Attributes:
        folds: Members, each of which leaves one fold out, >= 2.
        mirrored_is_fake: Whether a mirrored image is a fake: true for digits, false for faces and rooms.
        classifier: Each member's budget and augmentation.
        seed: Decides folds, fakes and training.
    """

    folds: int = 3
    mirrored_is_fake: bool = True
    classifier: ClassifierSettings = field(default_factory=ClassifierSettings)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ValueError(f"CriticSettings.folds must be at least 2, got {self.folds}.")


@dataclass(frozen=True, eq=False)
class Critic:
    """An ensemble that tells real images from fakes and names their class.

    Attributes:
        members: One a fold; class K is the class of fakes.
        own: Opinions on the training images, each by the member that did not see it.
    """

    members: tuple[SmallCNN, ...]
    own: Opinion

    @classmethod
    def train(
        cls,
        images: UInt8,
        labels: Int64,
        *,
        num_classes: int,
        settings: CriticSettings,
        device: torch.device | str = "cpu",
    ) -> "Critic":
        """Train on the real training split; every class is drawn as often as it is in the data, fakes as often as all.

        Args:
            images: (N, H, W, C) uint8 real training images.
            labels: (N,) integers in [0, K).
            num_classes: K.
            settings: See above.
            device: Where to train.

        Raises:
            ValueError: Where there are fewer than two images outside a fold.
        """
        fold = _folds(labels, count=settings.folds, seed=settings.seed)
        members, outside = [], np.zeros((len(images), num_classes + 1))
        for i in range(settings.folds):
            seen = np.flatnonzero(fold != i)
            fakes = make_fakes(
                images[seen], seed=settings.seed * settings.folds + i, mirrored=settings.mirrored_is_fake
            )
            member = train_classifier(
                np.concatenate([images[seen], fakes.images]),
                np.concatenate([labels[seen], np.full(len(fakes.images), num_classes)]),
                num_classes=num_classes + 1,
                settings=settings.classifier,
                seed=settings.seed * settings.folds + i,
                sampling_weights=np.concatenate([np.full(len(seen), 1 / len(seen)), fakes.odds]),
                device=device,
            )
            members.append(member)
            if (fold == i).any():
                outside[fold == i] = predict(member, images[fold == i])
        return cls(members=tuple(members), own=_opinion(outside))

    def judge(self, images: UInt8) -> Opinion:
        """The mean opinion of all members on images (M, H, W, C) uint8."""
        return _opinion(np.mean([predict(member, images) for member in self.members], axis=0))


def _opinion(probabilities: Float64) -> Opinion:
    real = probabilities[:, :-1]
    total = real.sum(axis=1)
    return Opinion(realness=total, probabilities=real / np.maximum(total, np.finfo(np.float64).tiny)[:, None])


def _folds(labels: Int64, *, count: int, seed: int) -> Int64:
    """(N,) fold of every image; each class is spread evenly."""
    rng = np.random.default_rng(seed)
    fold = np.empty(len(labels), dtype=np.int64)
    start = 0
    for label in np.unique(labels):
        mine = rng.permutation(np.flatnonzero(labels == label))
        fold[mine] = (start + np.arange(len(mine))) % count
        start += len(mine)
    return fold
