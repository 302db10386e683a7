"""Labels for images that were drawn without one: a classifier trained on the real training split.

Shapes: N images, H x W pixels, C channels, K groups.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minority.classifier import ClassifierSettings, SmallCNN, balancing_odds, predict, train_classifier
from minority.runtime.progress import called


@dataclass(frozen=True, eq=False)
class Labeller:
    """An ensemble that names the group of an image.

    Attributes:
        members: Classifiers with one output a group.
    """

    members: tuple[SmallCNN, ...]

    @classmethod
    def train(
        cls,
        images: NDArray[np.uint8],
        groups: NDArray[np.int64],
        *,
        num_groups: int,
        settings: ClassifierSettings,
        members: int = 3,
        device: str = "cpu",
    ) -> "Labeller":
        """Train on real images, every group drawn equally often.

        Args:
            images: (N, H, W, C) uint8 real training images.
            groups: (N,) their groups in [0, num_groups).
            num_groups: K.
            settings: Each member's budget.
            members: Classifiers in the ensemble; member i is trained with seed i.
            device: Where to train.
        """
        odds = balancing_odds(groups)
        trained = []
        for seed in range(members):
            with called(f"training the labeller, {seed + 1} of {members}"):
                trained.append(
                    train_classifier(
                        images,
                        groups,
                        num_classes=num_groups,
                        settings=settings,
                        seed=seed,
                        sampling_weights=odds,
                        device=device,
                    )
                )
        return cls(tuple(trained))

    def label(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Name the groups.

        Returns:
            (N,) most probable group, and (N,) its mean probability over the ensemble.
        """
        probabilities = np.mean([predict(member, images) for member in self.members], axis=0)
        return probabilities.argmax(axis=1), probabilities.max(axis=1)


def confidence_floor(confidence: NDArray[np.float64], correct: NDArray[np.bool_], *, precision: float) -> float:
    """The lowest confidence from which answers on unseen real images are right often enough.

    Args:
        confidence: (N,) of the answers, in [0, 1].
        correct: (N,) whether they were right.
        precision: Share of right ones demanded among all that are at least as confident, in (0, 1].

    Returns:
        In [0, 1]: a confidence that occurred, or 1 where even the most confident answers are wrong too often.
    """
    order = np.argsort(-confidence, kind="stable")
    ordered, right = confidence[order], np.cumsum(correct[order])
    # Equal confidences are believed together, so a floor may only lie at the last of them.
    last = np.append(ordered[1:] != ordered[:-1], True)
    enough = last & (right >= precision * np.arange(1, len(order) + 1))
    return float(ordered[np.flatnonzero(enough)[-1]]) if enough.any() else 1.0
