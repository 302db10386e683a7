"""Multistep consistency sampling (Song et al., ICML 2023, algorithm 1), which latent consistency models walk.

Every step goes all the way to the clean estimate, and fresh noise brings it to the next level:

    x_next = sqrt(abar_next) x0_hat + sqrt(1 - abar_next) z

Shapes: B samples, C channels, H x W pixels.
"""

import math
from dataclasses import dataclass

import torch

from minority.diffusion.chain import Chain, Estimate
from minority.solvers import Arrival, Move


@dataclass(frozen=True, kw_only=True)
class Renoise:
    """Draws the next state anew around the clean estimate.

    Attributes:
        clip_x0: Clip the clean estimate to where clean states lie (images: [-1, 1]).
    """

    clip_x0: bool = True

    @property
    def is_stochastic(self) -> bool:
        """True: every step but the last adds noise."""
        return True

    def move(self, chain: Chain, estimate: Estimate, previous: Arrival | None) -> Move:
        """The clean estimate at the next level, and that level's noise.

        Args:
            chain: The denoiser and its schedule.
            estimate: What the denoiser says about the present state, (B, C, H, W).
            previous: Not needed.
        """
        x0 = chain.space.clipped(estimate.x0_hat) if self.clip_x0 else estimate.x0_hat
        abar_next = float(chain.schedule.abar_previous[estimate.step])
        deviation = torch.full((1, 1, 1, 1), math.sqrt(1 - abar_next), device=x0.device)
        return Move(mean=math.sqrt(abar_next) * x0, deviation=deviation, x0=x0)
