"""Between finished images and the states of a chain, for backbones whose chain is not one of images.

Shapes: B samples, C channels, H x W pixels; images are in [-1, 1].
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Codec(Protocol):
    """Encodes images, and turns states into images."""

    @property
    def state_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one state."""
        ...

    @property
    def discretised(self) -> bool:
        """Whether clean states are 8-bit images themselves."""
        ...

    def encode(self, images: Tensor) -> Tensor:
        """The clean states (B, *state_shape) that stand for images (B, *image_shape); no noise is drawn."""
        ...

    def decode(self, states: Tensor) -> Tensor:
        """The images (B, *image_shape) that clean states stand for, as guidance sees them: differentiable, no noise."""
        ...

    def finish(self, states: Tensor, seed: int, indices: Sequence[int], label: Tensor | None) -> tuple[Tensor, float]:
        """The images (B, *image_shape) of drawn states, and network calls a sample; see `Backbone.finish`."""
        ...

    @property
    def finish_evaluations(self) -> float:
        """The network calls a sample that `finish` takes."""
        ...

    def to(self, device: torch.device) -> "Codec":
        """The same codec on a device; this one stays where it is."""
        ...

    def in_precision(self, precision: str) -> "Codec":
        """The same codec with networks of the chain's kind in another precision; autoencoders stay in fp32."""
        ...
