"""Between images as files hold them and images as networks see them.

Shapes: B images, C channels, H x W pixels.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_pixels(x: Tensor) -> NDArray[np.uint8]:
    """(B, C, H, W) in [-1, 1] to (B, H, W, C) uint8, rounded to the nearest level."""
    pixels = x.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def from_pixels(images: NDArray[np.uint8]) -> Tensor:
    """(B, H, W, C) uint8 to (B, C, H, W) float32 in [-1, 1].

    Example:
        >>> from_pixels(np.array([[[[0], [255]]]], dtype=np.uint8)).flatten().tolist()
        [-1.0, 1.0]
    """
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div(127.5).sub(1)
