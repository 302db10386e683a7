"""Classifier-free guidance (Ho & Salimans 2022): what the label adds to the prediction, amplified.

    eps = eps(x_t) + scale (eps(x_t, label) - eps(x_t))

Of flows, the guided velocity v can be brought back to the length of the labelled one, row by row, and late steps can go
without guidance, both as diffusers' Lumina2Pipeline has them:

    v <- v |v(x_t, label)| / |v|

The backbone must have been trained with labels left out now and then. A large scale trades diversity for typicality,
so for rare images it is a baseline rather than a remedy; 1 is plain conditional sampling.

Shapes: B samples, C channels, H x W pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from minority.backbones import Backbone
from minority.backbones.flow import FlowSchedule
from minority.diffusion.chain import Chain
from minority.diffusion.condition import Condition
from minority.diffusion.denoiser import Denoiser, Prediction
from minority.guidance import Guidance
from minority.guidance.method import Method, Stage
from minority.solvers import Solver


@dataclass(frozen=True, kw_only=True)
class ClassifierFree(Method):
    """Doubles the network calls, also of those that other methods make.

    Attributes:
        scale: 1 is the plain conditional prediction, 0 the unconditional one.
        normalized: Whether the guided velocity of a flow keeps the length of the labelled one, row by row of the state.
        share: Share of the chain's steps, from noise on, that are guided, in [0, 1]; the others take the labelled
            prediction alone.
    """

    key: ClassVar[str] = "classifier_free"
    paper: ClassVar[str] = "Ho & Salimans, 2022, arXiv 2207.12598"
    line: ClassVar[str] = "amplifies what the label adds to the prediction; doubles every network call"
    stage: ClassVar[Stage] = "prediction"
    obeys_prompts: ClassVar[bool] = True
    shown_when_absent: ClassVar[bool] = True
    shown_where_set: ClassVar[tuple[str, ...]] = ("normalized", "share")

    scale: float = 1.5
    normalized: bool = False
    share: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"ClassifierFree.share must lie in [0, 1], got {self.share}.")

    @property
    def calls(self) -> int:
        """One with the label and one without; steps that are not guided take one alone."""
        return 2

    def refusal(self, backbone: Backbone) -> str | None:
        """Needs a network that knows what no label is, and a flow where lengths are kept."""
        if self.normalized and not isinstance(backbone.schedule, FlowSchedule):
            return (
                f"backbone {backbone.name} is no flow, and classifier_free.normalized is of velocities; leave it out."
            )
        if backbone.distilled is not None and self.scale == 1:
            return None
        return refusal_of_free_guidance(backbone)

    def conflict(self, others: Sequence[Guidance], solver: Solver) -> str | None:
        """One scale is enough."""
        if any(isinstance(other, ClassifierFree) for other in others):
            return "there are two classifier-free scales; multiply them and give one."
        return None

    def wrap_denoiser(self, denoiser: Denoiser) -> Denoiser:
        """The extrapolated prediction; the reverse variance is that of the labelled one.

        Raises:
            ValueError: At the first step, where there are no labels, or the backbone knows no "no label".
        """

        def guided(x_t: Tensor, timestep: Tensor, label: Condition, /) -> Prediction:
            if label is None:
                raise ValueError("classifier-free guidance needs a label for every sample, got None.")
            free, labelled = denoiser(x_t, timestep, None), denoiser(x_t, timestep, label)
            if self.normalized:
                return _of_kept_length(free, labelled, timestep, scale=self.scale)
            x0_hat = None
            if free.x0_hat is not None and labelled.x0_hat is not None:
                x0_hat = free.x0_hat + self.scale * (labelled.x0_hat - free.x0_hat)
            return Prediction(
                eps=free.eps + self.scale * (labelled.eps - free.eps),
                variance_fraction=labelled.variance_fraction,
                log_variance=labelled.log_variance,
                x0_hat=x0_hat,
            )

        return guided

    def wrap_chain(self, chain: Chain) -> Denoiser:
        """The same, at the levels of the guided steps and above; the labelled prediction below them."""
        labelled = chain.predict
        guided, count = self.wrap_denoiser(labelled), chain.schedule.num_steps
        steps = [step for step in range(count) if (count - step) / count <= self.share]
        if len(steps) == count:
            return guided
        lowest = float(chain.schedule.timesteps[steps[0]]) if steps else math.inf

        def late_without(x_t: Tensor, timestep: Tensor, label: Condition, /) -> Prediction:
            # A call is of one level.
            return (guided if float(timestep[0]) >= lowest else labelled)(x_t, timestep, label)

        return late_without


def _of_kept_length(free: Prediction, labelled: Prediction, share: Tensor, *, scale: float) -> Prediction:
    """Guided predictions of a flow, whose velocity has the length of the labelled one in every row of the state.

    Args:
        free: Without a label, of a flow: noise and clean estimate, (B, C, H, W) each.
        labelled: With it.
        share: (B,) of noise.
        scale: Of the guidance.
    """
    assert free.x0_hat is not None, "flows tell the clean estimate"
    assert labelled.x0_hat is not None, "flows tell the clean estimate"
    without, along = free.eps - free.x0_hat, labelled.eps - labelled.x0_hat
    v = without + scale * (along - without)
    length = v.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(v.dtype).tiny)
    v = v * (along.norm(dim=-1, keepdim=True) / length)
    wide, moved = share.view(-1, 1, 1, 1).to(v), v - along
    return Prediction(eps=labelled.eps + (1 - wide) * moved, x0_hat=labelled.x0_hat - wide * moved)


def refusal_of_free_guidance(backbone: Backbone) -> str | None:
    """Why a backbone cannot be asked without a label, or has its guidance distilled in; None where it can."""
    if backbone.num_classes is None:
        return (
            f"backbone {backbone.name} takes no labels; classifier-free guidance needs one that was trained with "
            "labels, some of them left out."
        )
    if getattr(backbone.denoiser, "no_label", 0) is None:
        return (
            f"backbone {backbone.name} was trained with a label for every image; classifier-free guidance needs "
            "one that was trained with labels left out."
        )
    if backbone.distilled is not None:
        return (
            f"backbone {backbone.name} has its guidance distilled in ({backbone.distilled}); classifier-free guidance "
            "would ruin its images, leave it out."
        )
    return None
