"""A backbone of one size serves a set of another: images are resized, and grey or coloured, on the way.

Shapes: B samples, C channels, H x W pixels of the set; images are in [-1, 1].
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from minority.backbones.backbone import Backbone, BackboneError
from minority.backbones.codec import Codec

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as PIL turns colours into grey


@dataclass(frozen=True, eq=False)
class FittedCodec:
    """Another codec, whose images it gives and takes at the set's size.

    Attributes:
        inner: Encodes and decodes at the backbone's own size.
        drawn_shape: (C, H, W) of the backbone's own images.
        image_shape: (C, H, W) of the set's.
    """

    inner: Codec
    drawn_shape: tuple[int, int, int]
    image_shape: tuple[int, int, int]
    discretised: bool = False

    @property
    def state_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one state."""
        return self.inner.state_shape

    def encode(self, images: Tensor) -> Tensor:
        """The states of images of the set, which are resized first."""
        return self.inner.encode(_fitted(images, self.drawn_shape))

    def decode(self, states: Tensor) -> Tensor:
        """The images of states at the set's size; differentiable."""
        return _fitted(self.inner.decode(states), self.image_shape)

    def finish(self, states: Tensor, seed: int, indices: Sequence[int], label: Tensor | None) -> tuple[Tensor, float]:
        """The images of drawn states at the set's size."""
        images, calls = self.inner.finish(states, seed, indices, label)
        return _fitted(images.clamp(-1, 1), self.image_shape), calls

    @property
    def finish_evaluations(self) -> float:
        """Those of the codec inside."""
        return self.inner.finish_evaluations

    def to(self, device: torch.device) -> "FittedCodec":
        """The same codec on a device."""
        return replace(self, inner=self.inner.to(device))

    def in_precision(self, precision: str) -> "FittedCodec":
        """The same codec in another precision."""
        return replace(self, inner=self.inner.in_precision(precision))


def fitted(backbone: Backbone, image_shape: tuple[int, int, int]) -> Backbone:
    """The same backbone for images of a set.

    Args:
        backbone: With a codec, as every latent backbone has one.
        image_shape: (C, H, W) of the set's images: square, grey or of three colours.

    Raises:
        BackboneError: Where images would be distorted, or channels are no colours.
    """
    if backbone.codec is None:
        raise BackboneError(
            f"backbone {backbone.name} draws images themselves and cannot be fitted to {image_shape} (C, H, W); set "
            "dataset.image_size to its own size."
        )
    (own_channels, own_height, own_width), (channels, height, width) = backbone.image_shape, image_shape
    if height * own_width != width * own_height:
        raise BackboneError(
            f"backbone {backbone.name} makes images of {own_height}x{own_width} pixels, which {height}x{width} would "
            "distort; set dataset.image_size."
        )
    if own_channels not in (1, 3) or channels not in (1, 3):
        raise BackboneError(
            f"images of {channels} channels cannot be made of {own_channels}; they must be grey or of 3 colours."
        )
    codec = FittedCodec(backbone.codec, backbone.image_shape, image_shape)
    return replace(backbone, codec=codec, image_shape=image_shape)


def _fitted(images: Tensor, shape: tuple[int, int, int]) -> Tensor:
    channels, height, width = shape
    if images.shape[1] == 3 and channels == 1:
        weights = torch.tensor(_GREY, dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
        images = (images * weights).sum(dim=1, keepdim=True)
    elif images.shape[1] == 1 and channels == 3:
        images = images.expand(-1, 3, -1, -1)
    if images.shape[-2:] == (height, width):
        return images
    return F.interpolate(images, size=(height, width), mode="bilinear", align_corners=False, antialias=True)
