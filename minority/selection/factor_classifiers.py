"""Classifiers of the label and of every attribute: do samples of a combination show what was asked for?

They are fitted on the real training images alone, so they can evaluate combinations that have no real image. Such
images
confound the conditions: a value that is never seen with another one would be learnt to exclude it. So every image is
told only from the values that occur with its other values, its rivals: the limit of logit adjustment by p(value given
the others) (Menon et al. 2021) where that is 0. And every combination is drawn equally often.

Shapes: N training images, M candidates, F conditions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minority.classifier import ClassifierSettings, balancing_odds, predict, train_classifier
from minority.selection.labelling import Labeller

Int64 = NDArray[np.int64]

_NO_RIVAL = -1e4  # a logit without any probability


@dataclass(frozen=True, eq=False)
class FactorClassifiers:
    """One ensemble a condition.

    Attributes:
        labellers: F ensembles; the label's first.
    """

    labellers: tuple[Labeller, ...]

    @classmethod
    def train(
        cls,
        images: NDArray[np.uint8],
        values: Int64,
        *,
        sizes: Sequence[int],
        settings: ClassifierSettings,
        only: Sequence[int] | None = None,
        members: int = 3,
        device: str = "cpu",
    ) -> "FactorClassifiers":
        """Train on the real training images.

        Args:
            images: (N, H, W, C) uint8.
            values: (N, F) numbers of each image's values; -1 where one is unknown, such images teach the others.
            sizes: F numbers of values, each at least 2.
            settings: Each member's budget.
            only: The conditions that are told; None: all. The others still say which values are rivals.
            members: Classifiers an ensemble; member i is trained with seed i.
            device: Where to train.

        Raises:
            ValueError: A condition has fewer than 2 values, or none of its values is known.
        """
        labellers = []
        for place in range(len(sizes)) if only is None else only:
            size = sizes[place]
            known = np.flatnonzero(values[:, place] >= 0)
            if size < 2 or len(known) == 0:
                raise ValueError(f"condition {place} needs at least 2 values and images that show them, has {size}.")
            odds = balancing_odds(np.unique(values[known], axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64))
            rivals = rivals_of(values[known], place=place, size=size)
            networks = [
                train_classifier(
                    images[known],
                    values[known, place],
                    num_classes=size,
                    settings=settings,
                    seed=seed,
                    sampling_weights=odds,
                    offsets=np.where(rivals, 0.0, _NO_RIVAL),
                    device=device,
                )
                for seed in range(members)
            ]
            labellers.append(Labeller(tuple(networks)))
        return cls(tuple(labellers))

    def named(self, images: NDArray[np.uint8]) -> Int64:
        """The likeliest value of every condition, (M, F)."""
        return np.stack([labeller.label(images)[0] for labeller in self.labellers], axis=1)

    def accepts(self, images: NDArray[np.uint8], asked: Int64) -> NDArray[np.bool_]:
        """(M, F) whether each image shows the value that was asked for; always true where none was (-1).

        Args:
            images: (M, H, W, C) uint8.
            asked: (M, F) values.
        """
        return (self.named(images) == asked) | (np.asarray(asked) < 0)

    def confidence(self, images: NDArray[np.uint8], asked: Int64) -> NDArray[np.float64]:
        """(M,) in [0, 1]: the smallest mean probability of a value that was asked for; 1 where none was."""
        found = np.ones(len(images))
        for place, labeller in enumerate(self.labellers):
            probabilities = np.mean([predict(member, images) for member in labeller.members], axis=0)
            own = probabilities[np.arange(len(images)), np.maximum(asked[:, place], 0)]
            found = np.minimum(found, np.where(asked[:, place] < 0, 1.0, own))
        return found


def rivals_of(values: Int64, *, place: int, size: int) -> NDArray[np.bool_]:
    """(N, size) which values of one condition occur together with each image's values of the others.

    Args:
        values: (N, F).
        place: The condition.
        size: How many values it has.
    """
    others = np.delete(values, place, axis=1)
    _, context = np.unique(others, axis=0, return_inverse=True)
    context = context.reshape(-1)
    seen = np.zeros((int(context.max()) + 1, size), dtype=bool)
    seen[context, values[:, place]] = True
    return seen[context]
