"""Boost-and-Skip (Um, Kim & Ye, ICML 2025): rare images from a start that is too loud and too late.

The chain starts from noise of standard deviation gamma > 1 and leaves out its first, noisiest steps, which would
have contracted that surplus away. No gradients, and fewer steps than plain sampling.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor

from minority.diffusion.noise import NoiseSource
from minority.diffusion.schedule import NoiseSchedule
from minority.guidance.method import Method, Stage


@dataclass(frozen=True, kw_only=True)
class BoostAndSkip(Method):
    """Starts a chain from boosted noise, some steps down.

    Attributes:
        boost: Standard deviation gamma of the starting noise; 1 is the plain start.
        skip: Share of the chain left out at its noisy end, in [0, 1).
    """

    key: ClassVar[str] = "boost_and_skip"
    paper: ClassVar[str] = "Um, Kim & Ye, ICML 2025, arXiv 2502.06516"
    line: ClassVar[str] = "starts from louder noise and leaves out the first steps; fewer evaluations, no gradients"
    stage: ClassVar[Stage] = "start"
    grids = ({"boost": (2.0, 3.0, 4.0), "skip": (0.06, 0.12)},)
    shown_when_absent: ClassVar[bool] = True

    boost: float = 4.0
    skip: float = 0.06

    def __post_init__(self) -> None:
        if not self.boost > 0:
            raise ValueError(f"BoostAndSkip.boost must be positive, got {self.boost}.")
        if not 0 <= self.skip < 1:
            raise ValueError(f"BoostAndSkip.skip must lie in [0, 1), got {self.skip}.")

    @classmethod
    def samplers(cls) -> Mapping[str, Self]:
        """Twice the published skip, which suits the digits."""
        return {"boost-and-skip": cls(boost=4.0, skip=0.12)}

    @classmethod
    def published(cls) -> Self | None:
        """The paper's."""
        return cls()

    def describe(self) -> str:
        """Both settings."""
        return f"boost {self.boost:g} skip {self.skip:g}"

    def first_step(self, schedule: NoiseSchedule) -> int:
        """The step below the ones that are skipped: whole steps, rounded down."""
        # But not because 0.29 * 100 is 28.999...
        return schedule.num_steps - 1 - int(round(self.skip * schedule.num_steps, 9))

    def start(self, schedule: NoiseSchedule, noise: NoiseSource) -> tuple[Tensor, int]:
        """Boosted noise (B, C, H, W) and the step below the ones that are skipped."""
        return self.boost * noise.start(), self.first_step(schedule)
