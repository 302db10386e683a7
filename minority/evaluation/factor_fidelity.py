"""How faithfully a backbone with separate conditions draws each of them, by classifiers of real training images.

Every combination of values is drawn, those that the training images show and those that they do not; classifiers of the
label and of every attribute (minority/selection/factor_classifiers.py) say what is shown. The same classifiers on
held-out real images say how far they can be believed.

Shapes: N training images, M held-out images, F conditions, G combinations.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from minority.backbones import Backbone
from minority.classifier import ClassifierSettings
from minority.guidance.composed_conditions import ComposedConditions
from minority.runtime.image_arrays import Images
from minority.sampling.draw import draw_images
from minority.sampling.settings import SamplerSettings
from minority.selection.factor_classifiers import FactorClassifiers

Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class DrawnCombination:
    """One combination of values.

    Attributes:
        values: Condition -> value.
        training: Training images of it.
        shown: Condition -> share of its samples that show the value.
    """

    values: Mapping[str, str]
    training: int
    shown: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class FactorFidelity:
    """What samples of every combination show.

    Attributes:
        samples: Drawn of each combination.
        held_out: Condition -> share of held-out real images whose value the classifiers name; NaN without any image.
        combinations: G of them.
    """

    samples: int
    held_out: Mapping[str, float]
    combinations: tuple[DrawnCombination, ...]

    def mean(self, condition: str, *, observed: bool) -> float:
        """Mean share over the combinations that have training images, or over those that have none; NaN without any."""
        shares = [one.shown[condition] for one in self.combinations if (one.training > 0) == observed]
        return float(np.mean(shares)) if shares else float("nan")


def measure_fidelity(
    backbone: Backbone,
    *,
    train: Images,
    train_values: Int64,
    held_out: Images,
    held_out_values: Int64,
    samples: int,
    steps: int,
    seed: int = 0,
    classifier: ClassifierSettings | None = None,
    device: torch.device | str = "cpu",
) -> FactorFidelity:
    """Draw every combination and ask the classifiers.

    Args:
        backbone: With separate conditions.
        train: (N, H, W, C) uint8, what it was trained on.
        train_values: (N, F) theirs, -1 where one is unknown.
        held_out: (M, H, W, C) uint8.
        held_out_values: (M, F).
        samples: Of each combination.
        steps: Of the respaced chain; combinations are drawn by composed conditions at their defaults.
        seed: Decides all noise.
        classifier: Each classifier's budget.
        device: Where to compute.

    Raises:
        ValueError: The backbone has no separate conditions, or one of them has a single value.
    """
    factors = backbone.factors
    if factors is None:
        raise ValueError(f"backbone {backbone.name} has no separate conditions.")
    sizes = [len(factor.values) for factor in factors.factors]
    filters = FactorClassifiers.train(
        train, train_values, sizes=sizes, settings=classifier or ClassifierSettings(), device=str(device)
    )
    cells = np.array(list(product(*map(range, sizes))), dtype=np.int64)
    asked = np.repeat(cells, samples, axis=0)
    images, _ = draw_images(
        backbone,
        seed=seed,
        indices=range(len(asked)),
        labels=factors.rows(asked).tolist(),
        settings=SamplerSettings(steps=steps).guided(ComposedConditions()),
        device=device,
    )
    shown = filters.accepts(images, asked).reshape(len(cells), samples, len(sizes)).mean(axis=1)  # (G, F)
    named, known = filters.named(held_out) if len(held_out) else held_out_values, held_out_values >= 0
    right = [
        float((named[known[:, position], position] == held_out_values[known[:, position], position]).mean())
        if known[:, position].any() and len(held_out)
        else float("nan")
        for position in range(len(sizes))
    ]
    return FactorFidelity(
        samples=samples,
        held_out=dict(zip(factors.names, right, strict=True)),
        combinations=tuple(
            DrawnCombination(
                values={factor.name: factor.values[i] for factor, i in zip(factors.factors, cell, strict=True)},
                training=int((train_values == cell).all(axis=1).sum()),
                shown=dict(zip(factors.names, shares.tolist(), strict=True)),
            )
            for cell, shares in zip(cells, shown, strict=True)
        ),
    )
