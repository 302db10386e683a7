"""Composed conditions (Liu et al. 2022): what each condition adds to the prediction, weighed on its own and together.

    eps = eps(x_t) + joint (eps(x_t, all) - eps(x_t)) + sum_f separate_f (eps(x_t, f) - eps(x_t))

The first sum is classifier-free guidance by the combination as a whole, which needs the network to know what the
combination looks like; the second adds up what it knows of every condition alone. For combinations that were never
shown, the two fail differently, so both weights are here.

Shapes: B samples, C channels, H x W pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from minority.backbones import Backbone
from minority.backbones.factors import Factors
from minority.diffusion.condition import Condition
from minority.diffusion.denoiser import Denoiser, Prediction
from minority.guidance import Guidance
from minority.guidance.cfg_plus_plus import CfgPlusPlus
from minority.guidance.classifier_free import ClassifierFree
from minority.guidance.materials import Materials
from minority.guidance.method import Method, Stage
from minority.solvers import Solver


@dataclass(frozen=True, kw_only=True)
class ComposedConditions(Method):
    """Needs a backbone whose label and attributes are separate conditions (training: `conditions`).

    Attributes:
        joint: Weight of all conditions together, >= 0; 1 alone is the plain conditional prediction.
        separate: Weight of each condition alone, in the order in which the backbone has them (the label first), each
            >= 0; one number counts for all, none for nothing.
    """

    key: ClassVar[str] = "composed_conditions"
    paper: ClassVar[str] = "Liu et al., ECCV 2022, arXiv 2206.01714"
    line: ClassVar[str] = "weighs label and attributes together and each alone; a network call for each weight"
    stage: ClassVar[Stage] = "prediction"

    joint: float = 2.0
    separate: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "separate", tuple(self.separate))
        weights = (self.joint, *self.separate)
        if min(weights) < 0 or max(weights) == 0:
            raise ValueError(
                f"ComposedConditions.joint and .separate must not be negative, and one above 0, got {self.joint} and "
                f"{self.separate}."
            )

    @classmethod
    def samplers(cls) -> Mapping[str, Self]:
        """None: it needs a backbone with separate conditions."""
        return {}

    @property
    def calls(self) -> int:
        """One without conditions, one with all, and one for each that has a weight of its own."""
        return 1 + (self.joint > 0) + sum(weight > 0 for weight in self.separate)

    def refusal(self, backbone: Backbone) -> str | None:
        """Needs separate conditions, and as many weights as there are."""
        factors = backbone.factors
        if factors is None:
            return (
                f"backbone {backbone.name} has no separate conditions; composed_conditions needs one that was trained "
                "with them (train-backbone: conditions), or take classifier_free."
            )
        if len(self.separate) not in (0, 1, len(factors.names)):
            return (
                f"composed_conditions.separate has {len(self.separate)} weights, backbone {backbone.name} the "
                f"conditions {', '.join(factors.names)}; give one each, or one for all."
            )
        return None

    def conflict(self, others: Sequence[Guidance], solver: Solver) -> str | None:
        """It is a classifier-free scale itself."""
        if any(isinstance(other, (ClassifierFree, CfgPlusPlus, ComposedConditions)) for other in others):
            return "there are two classifier-free scales; give one."
        return None

    def ready(self, backbone: Backbone, materials: Materials) -> Guidance:
        """The weights with the conditions that they are for.

        Raises:
            ValueError: The backbone has no separate conditions.
        """
        if backbone.factors is None:
            raise ValueError(f"backbone {backbone.name} has no separate conditions; leave composed_conditions out.")
        count = len(backbone.factors.names)
        separate = self.separate * count if len(self.separate) == 1 else self.separate
        return _Composition(joint=self.joint, separate=separate, factors=backbone.factors)


@dataclass(frozen=True, kw_only=True)
class _Composition(Guidance):
    """The weights, and the conditions that they are for."""

    joint: float
    separate: tuple[float, ...]
    factors: Factors

    def wrap_denoiser(self, denoiser: Denoiser) -> Denoiser:
        """The composed prediction; the reverse variance is that of all conditions together.

        Raises:
            ValueError: At the first step, where the samples have no labels.
        """

        def composed(x_t: Tensor, timestep: Tensor, label: Condition, /) -> Prediction:
            if not isinstance(label, Tensor):
                raise ValueError("composed conditions need a label for every sample, got none.")
            free = denoiser(x_t, timestep, torch.full_like(label, self.factors.nothing))
            parts = [(self.joint, denoiser(x_t, timestep, label))] if self.joint > 0 else []
            parts += [
                (weight, denoiser(x_t, timestep, self.factors.alone(label, position)))
                for position, weight in enumerate(self.separate)
                if weight > 0
            ]
            eps, x0_hat = free.eps, free.x0_hat
            for weight, part in parts:
                eps = eps + weight * (part.eps - free.eps)
                if x0_hat is not None and free.x0_hat is not None and part.x0_hat is not None:
                    x0_hat = x0_hat + weight * (part.x0_hat - free.x0_hat)
            first = parts[0][1]
            return Prediction(
                eps=eps, variance_fraction=first.variance_fraction, log_variance=first.log_variance, x0_hat=x0_hat
            )

        return composed
