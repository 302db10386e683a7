"""Mild affine augmentation of image batches, for backbones and classifiers trained on few images.

Shapes: B samples, C channels, H x W pixels.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class AffineAugmentation:
    """How far an image may be moved; every amount is drawn uniformly, for each image on its own.

    Attributes:
        rotation: Largest rotation in degrees, in [0, 180].
        translation: Largest shift as a share of the image's side, in [0, 1).
        scaling: Largest relative change of size, along each axis on its own, in [0, 1).
        shear: Largest shear, in pixels a pixel, in [0, 1).
    """

    rotation: float = 10.0
    translation: float = 0.06
    scaling: float = 0.1
    shear: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"AffineAugmentation.rotation must lie in [0, 180] degrees, got {self.rotation}.")
        for name in ("translation", "scaling", "shear"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"AffineAugmentation.{name} must lie in [0, 1), got {getattr(self, name)}.")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Move every image a little; what comes in from outside repeats the border.

        Args:
            images: (B, C, H, W), H = W where images are rotated or sheared (the amounts are in units of the sides).
            generator: Where the amounts come from.

        Returns:
            (B, C, H, W).
        """
        amount = torch.rand((len(images), 6), generator=generator) * 2 - 1
        angle = amount[:, 0] * math.radians(self.rotation)
        cos, sin = torch.cos(angle), torch.sin(angle)
        rotation = torch.stack([torch.stack([cos, -sin], dim=1), torch.stack([sin, cos], dim=1)], dim=1)  # (B, 2, 2)
        stretch = torch.zeros((len(images), 2, 2))
        stretch[:, 0, 0] = 1 + amount[:, 1] * self.scaling
        stretch[:, 1, 1] = 1 + amount[:, 2] * self.scaling
        stretch[:, 0, 1] = amount[:, 3] * self.shear
        shift = amount[:, 4:6, None] * self.translation * 2  # the grid's side is 2
        grid = functional.affine_grid(
            torch.cat([rotation @ stretch, shift], dim=2), list(images.shape), align_corners=False
        )
        # Bilinear interpolation would blur small images, and a backbone learns to draw what it is shown.
        moved = functional.grid_sample(
            images, grid.to(images.device), mode="bicubic", padding_mode="border", align_corners=False
        )
        return moved.clamp(images.amin(dim=(1, 2, 3), keepdim=True), images.amax(dim=(1, 2, 3), keepdim=True))
