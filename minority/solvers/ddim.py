"""DDIM (Song, Meng & Ermon, ICLR 2021): the same marginals with as little noise on the way as wanted.

A step is their eq. 12, with the deviation sigma of their eq. 16; abar here is alpha there:

    x_next = sqrt(abar_next) x0_hat + sqrt(1 - abar_next - sigma^2) eps + sigma z          (12)
    sigma = eta sqrt((1 - abar_next) / (1 - abar)) sqrt(1 - abar / abar_next)              (16)

Shapes: B samples, C channels, H x W pixels.
"""

import math
from dataclasses import dataclass

import torch

from minority.diffusion.chain import Chain, Estimate
from minority.solvers import Arrival, Move


@dataclass(frozen=True, kw_only=True)
class Ddim:
    """Follows the deterministic path, or a noisy one.

    Attributes:
        eta: Noise on the way, >= 0: 0 is deterministic, 1 adds the posterior's variance. Limited at every step to
            what the step's marginal leaves room for.
        clip_x0: Clip the clean estimate to where clean states lie (images: [-1, 1]); the predicted noise then
            follows from the clipped one.
    """

    eta: float = 0.0
    clip_x0: bool = True

    def __post_init__(self) -> None:
        if not self.eta >= 0:
            raise ValueError(f"Ddim.eta must not be negative, got {self.eta}.")

    @property
    def is_stochastic(self) -> bool:
        """Whether eta is positive."""
        return self.eta > 0

    def move(self, chain: Chain, estimate: Estimate, previous: Arrival | None) -> Move:
        """x0_hat and the predicted noise, mixed for the next noise level (eq. 12).

        Args:
            chain: The denoiser and its schedule.
            estimate: What the denoiser says about the present state, (B, C, H, W).
            previous: Not needed.
        """
        schedule, step = chain.schedule, estimate.step
        x0 = chain.space.clipped(estimate.x0_hat) if self.clip_x0 else estimate.x0_hat
        eps = schedule.eps_from_x0(estimate.x_t, step, x0) if estimate.renoise is None else estimate.renoise
        room = 1.0 - float(schedule.abar_previous[step])
        variance = min(self.eta**2 * float(schedule.posterior_variance[step]), room)  # eq. 16, squared
        mean = math.sqrt(schedule.abar_previous[step]) * x0 + math.sqrt(room - variance) * eps
        deviation = torch.full((1, 1, 1, 1), math.sqrt(variance), device=x0.device) if self.is_stochastic else None
        return Move(mean=mean, deviation=deviation, x0=x0)
