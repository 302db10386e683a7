"""Classifier-free guidance (Ho & Salimans 2022): what the label adds to the prediction, amplified.

    eps = eps(x_t) + scale (eps(x_t, label) - eps(x_t))

The backbone must have been trained with labels left out now and then. A large scale trades diversity for typicality,
so for rare images it is a baseline rather than a remedy; 1 is plain conditional sampling.

Shapes: B samples, C channels, H x W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from minority.backbones import Backbone
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
    """

    key: ClassVar[str] = "classifier_free"
    paper: ClassVar[str] = "Ho & Salimans, 2022, arXiv 2207.12598"
    line: ClassVar[str] = "amplifies what the label adds to the prediction; doubles every network call"
    stage: ClassVar[Stage] = "prediction"
    obeys_prompts: ClassVar[bool] = True
    shown_when_absent: ClassVar[bool] = True

    scale: float = 1.5

    @property
    def calls(self) -> int:
        """One with the label and one without."""
        return 2

    def refusal(self, backbone: Backbone) -> str | None:
        """Needs a network that knows what no label is."""
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
