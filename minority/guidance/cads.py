"""CADS, the condition-annealed diffusion sampler (Sadat et al., ICLR 2024): prompts that are noised early on.

What the network is told of the prompt starts as noise and is cleared along the chain, so that early steps, which decide
the composition, are told little and samples of one prompt differ more. With t the share of the chain that is left,

    y' = sqrt(g) y + noise_scale sqrt(1 - g) n,     g = 1 below tau_1, 0 above tau_2, linear between

and y' is brought back to y's mean and deviation, mixed in by `rescale`. The negative prompt stays as it is.

Shapes: B samples, L tokens, D features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from minority.backbones import Backbone
from minority.backbones.text.denoiser import FlowTextDenoiser, TextDenoiser
from minority.diffusion.chain import Chain
from minority.diffusion.condition import Embedding
from minority.diffusion.noise import NoiseSource
from minority.guidance import Guidance
from minority.guidance.method import Method, Stage
from minority.solvers import Solver

_KEPT = ("mask",)  # which tokens are words is no number to be noised
_OWN = "cads"  # the note of what is told now, and of what it was made from


@dataclass(frozen=True, kw_only=True)
class Cads(Method):
    """For text-to-image backbones; costs nothing.

    Attributes:
        noise_scale: s, of the noise beside embeddings as they are.
        tau_1: Share of the chain from the clean end up to which prompts are told as they are.
        tau_2: Share from which they are noise alone; tau_1 < tau_2.
        rescale: psi in [0, 1], how far the noised embedding is brought back to the prompt's mean and deviation.
    """

    key: ClassVar[str] = "cads"
    paper: ClassVar[str] = "Sadat et al., ICLR 2024, arXiv 2310.17347"
    line: ClassVar[str] = "noises the prompt early on, so that samples of one prompt differ more"
    needs_prompts: ClassVar[bool] = True
    stage: ClassVar[Stage] = "noise"  # behind methods that put another prompt in place

    noise_scale: float = 0.1
    tau_1: float = 0.6
    tau_2: float = 0.9
    rescale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.tau_1 < self.tau_2 <= 1:
            raise ValueError(f"Cads needs 0 <= tau_1 < tau_2 <= 1, got {self.tau_1} and {self.tau_2}.")
        if not self.noise_scale >= 0 or not 0 <= self.rescale <= 1:
            raise ValueError(
                f"Cads.noise_scale must not be negative and .rescale must lie in [0, 1], got {self.noise_scale} and "
                f"{self.rescale}."
            )

    def refusal(self, backbone: Backbone) -> str | None:
        """Needs a backbone that is told prompts."""
        if backbone.prompts is None:
            return f"backbone {backbone.name} draws by no prompts, and CADS noises prompts; leave cads out."
        return None

    def conflict(self, others: Sequence[Guidance], solver: Solver) -> str | None:
        """Noise is added once to a prompt, and branches would be told one that was noised for another chain."""
        if any(isinstance(other, Cads) for other in others):
            return "there are two of it; give one."
        if any(other.particle_group > 1 for other in others):
            return "chains that replace one another would be told prompts noised twice; leave pruning out."
        return None

    def share(self, step: int, num_steps: int) -> float:
        """g, how much of the prompt is told at a step: 0 nothing, 1 all."""
        left = (step + 1) / num_steps
        return min(1.0, max(0.0, (self.tau_2 - left) / (self.tau_2 - self.tau_1)))

    def condition(self, x_t: Tensor, step: int, chain: Chain, noise: NoiseSource) -> None:
        """Tell the network a noised prompt.

        Raises:
            ValueError: Where the backbone is told no prompts.
        """
        if not isinstance(chain.denoiser, (TextDenoiser, FlowTextDenoiser)):
            raise ValueError("CADS noises embedded prompts; this backbone is told none, leave it out.")
        if chain.condition is None:
            raise ValueError("CADS needs a prompt for every sample, got None.")
        g = self.share(step, chain.schedule.num_steps)
        noised, source = chain.notes.get(_OWN, (None, None))
        if chain.condition is not noised:  # another method has put something new in place
            source = chain.condition
        plain = chain.denoiser.prompts.look_up(source, batch=len(x_t))
        tensors = {}
        for number, (name, tensor) in enumerate(plain.tensors.items()):
            if name in _KEPT or g == 1:
                tensors[name] = tensor
                continue
            normal = noise.condition(step, 16 + number, tuple(tensor.shape[1:])).to(tensor)
            tensors[name] = self._noised(tensor, normal, g)
        chain.condition = Embedding(tensors)
        chain.notes[_OWN] = (chain.condition, source)

    def _noised(self, tensor: Tensor, normal: Tensor, g: float) -> Tensor:
        noised = g**0.5 * tensor + self.noise_scale * (1 - g) ** 0.5 * normal
        dims = tuple(range(1, tensor.ndim))
        deviation, mean = torch.std_mean(tensor, dim=dims, keepdim=True)
        noised_deviation, noised_mean = torch.std_mean(noised, dim=dims, keepdim=True)
        tiny = torch.finfo(noised.dtype).tiny
        back = (noised - noised_mean) / noised_deviation.clamp(min=tiny) * deviation + mean
        return self.rescale * back + (1 - self.rescale) * noised
