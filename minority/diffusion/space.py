"""Where the clean states of a chain lie: among images, or among the latents of an autoencoder.

Samplers, guidance and scores ask the space where they would otherwise have to know what a state is: how far a clean
state may reach, which image it stands for, and whether it lies on the grid of 8-bit images.

Shapes: B samples, C channels, H x W pixels; images are in [-1, 1].
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


def _as_it_is(states: Tensor) -> Tensor:
    return states


@dataclass(frozen=True, kw_only=True)
class StateSpace:
    """What a chain's clean states are.

    Attributes:
        bound: Largest absolute value of a clean state, to which estimates are clipped; None clips nothing.
        to_images: States (B, C, H, W) to the images that they stand for, (B, C', H', W') in [-1, 1]; differentiable.
        discretised: Whether clean states are 8-bit images, so that the likelihood of the last step is that of a bin.
    """

    bound: float | None = 1.0
    to_images: Callable[[Tensor], Tensor] = _as_it_is
    discretised: bool = True

    def clipped(self, x0: Tensor) -> Tensor:
        """Clean estimates, brought back to where clean states lie."""
        return x0 if self.bound is None else x0.clamp(-self.bound, self.bound)


#: Images themselves.
PIXELS = StateSpace()
