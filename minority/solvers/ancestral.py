"""The ancestral solver of DDPM (Ho, Jain & Abbeel, NeurIPS 2020, algorithm 2): draw from q(x_{t-1} | x_t, x0_hat).

The mean of that normal is their eq. 7 at the clean estimate; with the clean estimate that the predicted noise gives,
it is their eq. 11.

Shapes: B samples, C channels, H x W pixels.
"""

from dataclasses import dataclass

from minority.diffusion.chain import Chain, Estimate
from minority.solvers import Arrival, Move


@dataclass(frozen=True, kw_only=True)
class Ancestral:
    """Adds the reverse variance of the chain (learned or fixed, minority/diffusion/chain.py) at every step.

    Attributes:
        clip_x0: Clip the clean estimate to where clean states lie (images: [-1, 1]).
    """

    clip_x0: bool = True

    @property
    def is_stochastic(self) -> bool:
        """True: every step but the last adds noise."""
        return True

    def move(self, chain: Chain, estimate: Estimate, previous: Arrival | None) -> Move:
        """The posterior mean at the clean estimate (eq. 7; unclipped, eq. 11), and the reverse deviation.

        Args:
            chain: The denoiser and its schedule.
            estimate: What the denoiser says about the present state, (B, C, H, W).
            previous: Not needed.
        """
        x0 = chain.space.clipped(estimate.x0_hat) if self.clip_x0 else estimate.x0_hat
        return Move(mean=chain.posterior_mean(estimate, x0), deviation=(0.5 * estimate.log_variance).exp(), x0=x0)
