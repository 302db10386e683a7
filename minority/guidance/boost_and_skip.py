"""Boost-and-Skip (Um, Kim & Ye, ICML 2025): rare images from a start that is too loud and too late.

The chain starts from noise of standard deviation gamma > 1 and leaves out its first, noisiest steps, which would
have contracted that surplus away. No gradients, and fewer steps than plain sampling.
"""

from dataclasses import dataclass

from torch import Tensor

from minority.diffusion.noise import NoiseSource
from minority.diffusion.schedule import NoiseSchedule
from minority.guidance import Guidance


@dataclass(frozen=True, kw_only=True)
class BoostAndSkip(Guidance):
    """Starts a chain from boosted noise, some steps down.

    Attributes:
        boost: Standard deviation gamma of the starting noise; 1 is the plain start.
        skip: Share of the chain left out at its noisy end, in [0, 1).
    """

    boost: float = 4.0
    skip: float = 0.06

    def __post_init__(self) -> None:
        if not self.boost > 0:
            raise ValueError(f"BoostAndSkip.boost must be positive, got {self.boost}.")
        if not 0 <= self.skip < 1:
            raise ValueError(f"BoostAndSkip.skip must lie in [0, 1), got {self.skip}.")

    def start(self, schedule: NoiseSchedule, noise: NoiseSource) -> tuple[Tensor, int]:
        """Boosted noise (B, C, H, W) and the step below the ones that are skipped."""
        # Whole steps, rounded down, but not because 0.29 * 100 is 28.999...
        skipped = int(round(self.skip * schedule.num_steps, 9))
        return self.boost * noise.start(), schedule.num_steps - 1 - skipped
