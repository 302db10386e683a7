"""CFG++ (Chung et al., ICLR 2025): guided towards the prompt, and noised again by the prediction without it.

    x0_hat from eps = eps(x_t) + scale (eps(x_t, label) - eps(x_t))
    x_{t-1} = sqrt(abar) x0_hat + sqrt(1 - abar) eps(x_t)

Scales lie in [0, 1]; 0.6 does what classifier-free guidance does at about 7.5.

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
from minority.guidance.classifier_free import ClassifierFree, refusal_of_free_guidance
from minority.guidance.method import Method, Stage
from minority.solvers import Solver, SolverName
from minority.solvers.ddim import Ddim


@dataclass(frozen=True, kw_only=True)
class CfgPlusPlus(Method):
    """Doubles the network calls, as classifier-free guidance does.

    Attributes:
        scale: In [0, 1]; 0 is the unconditional chain, 1 takes the clean estimate of the labelled prediction.
    """

    key: ClassVar[str] = "cfg_plus_plus"
    paper: ClassVar[str] = "Chung et al., ICLR 2025, arXiv 2406.08070"
    line: ClassVar[str] = "classifier-free guidance that stays on the data's manifold; doubles every network call"
    solver: ClassVar[SolverName] = "ddim"
    stage: ClassVar[Stage] = "prediction"
    obeys_prompts: ClassVar[bool] = True

    scale: float = 0.6

    def __post_init__(self) -> None:
        if not 0 <= self.scale <= 1:
            raise ValueError(f"CfgPlusPlus.scale must lie in [0, 1], got {self.scale}.")

    @property
    def calls(self) -> int:
        """One with the label and one without."""
        return 2

    def refusal(self, backbone: Backbone) -> str | None:
        """Needs a network that knows what no label is, and has no guidance distilled in."""
        return refusal_of_free_guidance(backbone)

    def conflict(self, others: Sequence[Guidance], solver: Solver) -> str | None:
        """It says how a DDIM step adds noise again, and is a classifier-free scale itself."""
        if any(isinstance(other, (ClassifierFree, CfgPlusPlus)) for other in others):
            return "there are two classifier-free scales; give one."
        if not isinstance(solver, Ddim):
            return f"it says how DDIM adds noise again, which {type(solver).__name__} does not; set solver: ddim."
        return None

    def wrap_denoiser(self, denoiser: Denoiser) -> Denoiser:
        """The extrapolated prediction, and the unconditional noise to be added again.

        Raises:
            ValueError: At the first step, where there are no labels, or the backbone knows no "no label".
        """

        def guided(x_t: Tensor, timestep: Tensor, label: Condition, /) -> Prediction:
            if label is None:
                raise ValueError("CFG++ needs a label for every sample, got None.")
            free = denoiser(x_t, timestep, None)
            labelled = denoiser(x_t, timestep, label)
            x0_hat = None
            if free.x0_hat is not None and labelled.x0_hat is not None:
                x0_hat = free.x0_hat + self.scale * (labelled.x0_hat - free.x0_hat)
            eps = free.eps + self.scale * (labelled.eps - free.eps)
            return labelled._replace(eps=eps, x0_hat=x0_hat, renoise=free.eps)

        return guided
