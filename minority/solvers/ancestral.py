"""The ancestral solver of DDPM (Ho et al. 2020, algorithm 2): draw from q(x_{t-1} | x_t, x0_hat)."""

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
        """Always."""
        return True

    def move(self, chain: Chain, estimate: Estimate, previous: Arrival | None) -> Move:
        """The posterior mean at the clean estimate, and the reverse deviation."""
        x0 = chain.space.clipped(estimate.x0_hat) if self.clip_x0 else estimate.x0_hat
        return Move(mean=chain.posterior_mean(estimate, x0), deviation=(0.5 * estimate.log_variance).exp(), x0=x0)
