"""Augmentations of whole batches on the device: the jitter of every arm, mixup and RandAugment.

Each takes random numbers in [0, 1) instead of drawing them, so that all of a training can be drawn at once.

Shapes: B images, C channels, H x W pixels, K classes; images are floats in [-1, 1].
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from minority.downstream.settings import Jitter

JITTER_DRAWS = 4  # random numbers an image
RANDAUGMENT_LAYERS = 2
_DRAWS_A_LAYER = 3
RANDAUGMENT_DRAWS = RANDAUGMENT_LAYERS * _DRAWS_A_LAYER


def jitter(images: Tensor, uniform: Tensor, *, settings: Jitter) -> Tensor:
    """Shift, rotate and perhaps mirror every image; what comes in from outside repeats the border.

    Args:
        images: (B, C, H, W).
        uniform: (B, 4) in [0, 1).
        settings: How much.
    """
    if settings.shift == 0 and settings.rotation == 0 and not settings.flip:
        return images
    angle = (2 * uniform[:, 0] - 1) * math.radians(settings.rotation)
    shift = 2 * settings.shift * (2 * uniform[:, 1:3] - 1)  # the grid's side is 2
    sign = torch.where(uniform[:, 3] < 0.5, -1.0, 1.0) if settings.flip else torch.ones_like(angle)
    return _moved(images, sign * angle.cos(), -sign * angle.sin(), angle.sin(), angle.cos(), shift[:, 0], shift[:, 1])


def mixup(images: Tensor, targets: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Blend every image with its neighbour in the batch (Zhang et al. 2018).

    Args:
        images: (B, C, H, W), in random order.
        targets: (B, K).
        share: () of the image itself, in [0, 1]; Beta(alpha, alpha) distributed.

    Returns:
        The blends and their targets.
    """
    return share * images + (1 - share) * images.roll(1, 0), share * targets + (1 - share) * targets.roll(1, 0)


def randaugment(images: Tensor, uniform: Tensor, *, magnitude: float) -> Tensor:
    """Two random operations, one after the other, at one magnitude (Cubuk et al. 2020).

    The operations are those of the paper that need no histogram: identity, shifts, shears and rotation, brightness,
    contrast, posterise and solarise.

    Args:
        images: (B, C, H, W).
        uniform: (B, 6) in [0, 1).
        magnitude: In (0, 30]; 30 is a rotation by 30 degrees, a shear by 0.3, a shift by 0.45 of the side.
    """
    for layer in range(RANDAUGMENT_LAYERS):
        choice, sign, _ = uniform[:, layer * _DRAWS_A_LAYER : (layer + 1) * _DRAWS_A_LAYER].unbind(dim=1)
        images = _operation(images, (choice * 10).long(), torch.where(sign < 0.5, -1.0, 1.0), magnitude / 30)
    return images


def _operation(images: Tensor, chosen: Tensor, sign: Tensor, strength: float) -> Tensor:
    """Apply operation `chosen` (B,), 0 ... 9, to every image; 0 leaves it alone."""

    def amount(operation: int, most: float) -> Tensor:
        return torch.where(chosen == operation, sign * strength * most, 0.0)  # (B,)

    angle = amount(1, math.radians(30))
    cosine, sine = angle.cos(), angle.sin()
    images = _moved(
        images, cosine, amount(2, 0.3) - sine, amount(3, 0.3) + sine, cosine, amount(4, 0.9), amount(5, 0.9)
    )
    brightness = _per_image(1 + amount(6, 0.9))
    contrast = _per_image(1 + amount(7, 0.9))
    images = (images + 1) * brightness - 1
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = ((images - mean) * contrast + mean).clamp(-1, 1)
    levels = 2.0 ** (8 - 4 * strength) - 1
    posterised = (((images + 1) / 2 * levels).floor() / levels) * 2 - 1
    images = torch.where(_per_image(chosen) == 8, posterised, images)
    solarised = torch.where(images > 1 - 2 * strength, -images, images)
    return torch.where(_per_image(chosen) == 9, solarised, images)


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _moved(images: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Look up every pixel at [[a, b], [c, d]] times its place plus (x, y); places are measured in half sides."""
    aspect = images.shape[2] / images.shape[3]
    rows = [torch.stack([a, b * aspect, x], dim=1), torch.stack([c / aspect, d, y], dim=1)]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
