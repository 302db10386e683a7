"""What turns a chain towards rare images: one file a method, one contract for all.

A guidance method may do two things, and by default does neither: choose where the chain starts, and shift the state
that a step arrives at. The sampler knows no method by name; a new method is a new file here.
"""

from torch import Tensor

from minority.chain import Chain, Estimate
from minority.noise import NoiseSource
from minority.schedule import NoiseSchedule


class Guidance:
    """Leaves the chain as it is. Methods override what they need."""

    @property
    def needs_gradient(self) -> bool:
        """Whether `shift` differentiates the denoiser: its estimate then carries gradients back to x_t."""
        return False

    def start(self, schedule: NoiseSchedule, noise: NoiseSource) -> tuple[Tensor, int] | None:
        """Choose the start of the chain.

        Returns:
            The first state (B, C, H, W) and its step; None to leave the start alone.
        """
        return None

    def acts_at(self, step: int, num_steps: int) -> bool:
        """Whether `shift` is wanted at this step of a chain of `num_steps`."""
        return False

    def shift(self, estimate: Estimate, chain: Chain, noise: NoiseSource) -> Tensor:
        """How far to move the state that this step arrives at, (B, C, H, W)."""
        raise NotImplementedError(f"{type(self).__name__} acts at a step but does not say how it shifts it.")


__all__ = ["Guidance"]
