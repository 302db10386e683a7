"""Classifier-free guidance (Ho & Salimans 2022): what the label adds to the prediction, amplified.

    eps = eps(x_t) + scale (eps(x_t, label) - eps(x_t))

The backbone must have been trained with labels left out now and then. A large scale trades diversity for typicality,
so for rare images it is a baseline rather than a remedy; 1 is plain conditional sampling.

Shapes: B samples, C channels, H x W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from minority.diffusion.condition import Condition
from minority.diffusion.denoiser import Denoiser, Prediction
from minority.guidance import Guidance
from minority.solvers import Solver


@dataclass(frozen=True, kw_only=True)
class ClassifierFree(Guidance):
    """Doubles the network calls, also of those that other methods make.

    Attributes:
        scale: 1 is the plain conditional prediction, 0 the unconditional one.
    """

    scale: float = 1.5

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
