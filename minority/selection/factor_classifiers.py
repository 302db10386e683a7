"""Classifiers of the label and of every attribute: do samples of a combination show what was asked for?

They are fitted on the real training images alone, every combination drawn equally often, so they can say of
combinations without any real image whether their parts are there. Such images confound the conditions: what is never
seen together is learnt to exclude one another, so that they err on the side of refusing. Taking absent combinations out
of the loss (logit adjustment in its limit) does worse: a value that is alone in its context then teaches nothing there,
and red was taken for blue.

Shapes: N training images, M candidates, F conditions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minority.classifier import ClassifierSettings, balancing_odds, predict, train_classifier
from minority.runtime.image_arrays import Images, choose
from minority.selection.labelling import Labeller

Int64 = NDArray[np.int64]


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
        images: Images,
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
            only: The conditions that are told; None: all. Every combination of all is drawn equally often.
            members: Classifiers an ensemble; member i is trained with seed i.
            device: Where to train.

        Raises:
            ValueError: A condition has fewer than 2 values, or none of its values is known.
        """
        labellers = []
        for factor in range(len(sizes)) if only is None else only:
            size = sizes[factor]
            known = np.flatnonzero(values[:, factor] >= 0)
            if size < 2 or len(known) == 0:
                raise ValueError(f"condition {factor} needs at least 2 values and images that show them, has {size}.")
            odds = balancing_odds(np.unique(values[known], axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64))
            networks = [
                train_classifier(
                    choose(images, known),
                    values[known, factor],
                    num_classes=size,
                    settings=settings,
                    seed=seed,
                    sampling_weights=odds,
                    device=device,
                )
                for seed in range(members)
            ]
            labellers.append(Labeller(tuple(networks)))
        return cls(tuple(labellers))

    def named(self, images: Images) -> Int64:
        """The likeliest value of every condition, (M, F)."""
        return np.stack([labeller.label(images)[0] for labeller in self.labellers], axis=1)

    def accepts(self, images: Images, asked: Int64) -> NDArray[np.bool_]:
        """(M, F) whether each image shows the value that was asked for; always true where none was (-1).

        Args:
            images: (M, H, W, C) uint8.
            asked: (M, F) values.
        """
        return (self.named(images) == asked) | (np.asarray(asked) < 0)

    def confidence(self, images: Images, asked: Int64) -> NDArray[np.float64]:
        """(M,) in [0, 1]: the smallest mean probability of a value that was asked for; 1 where none was."""
        smallest = np.ones(len(images))
        for factor, labeller in enumerate(self.labellers):
            probabilities = np.mean([predict(member, images) for member in labeller.members], axis=0)
            of_asked = probabilities[np.arange(len(images)), np.maximum(asked[:, factor], 0)]
            smallest = np.minimum(smallest, np.where(asked[:, factor] < 0, 1.0, of_asked))
        return smallest
