"""Distances between images by name, loaded once: plain ones, LPIPS, and the distance of two images' features.

Shapes: B samples, C channels, H x W pixels, D features; images are in [-1, 1].
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from minority.diffusion.minority_metric import Distance, lp_norm, squared_error
from minority.features.encoders import Lpips, load_encoder

DistanceName = Literal["l2", "squared", "lpips", "features"]


def distance_by_name(
    name: DistanceName,
    *,
    norm: float = 2.0,
    network: str = "alex",
    weights: str | None = None,
    device: torch.device | str = "cpu",
) -> Distance:
    """Look up a distance; networks are read once a process and device.

    Args:
        name: "l2" (norm with power `norm`, not raised to it), "squared" (sum of squares), "lpips" or "features".
        norm: p of "l2", >= 1.
        network: For "lpips" alex, vgg or squeeze; for "features" a classifier of torchvision.
        weights: Its weights on disk; None is allowed for "lpips" only and looks in torch's own cache.
        device: Where the network is needed.

    Raises:
        ValueError: Where the name, the network or its weights are unknown or missing.
    """
    if name == "l2":
        return lp_norm(norm)
    if name == "squared":
        return squared_error
    if name == "lpips":
        return _lpips(network, weights, str(device))
    if name == "features":
        if weights is None:
            raise ValueError('the distance "features" needs the path of the encoder\'s weights, got None.')
        return _features(network, weights, str(device))
    raise ValueError(f"there is no distance {name!r}; take l2, squared, lpips or features.")


def feature_distance(encoder: Callable[[Tensor], Tensor]) -> Distance:
    """Euclidean distance in an encoder's space.

    Args:
        encoder: (B, C, H, W) in [-1, 1] -> (B, D), differentiable.
    """

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return torch.linalg.vector_norm(encoder(a) - encoder(b), dim=1)

    return distance


@lru_cache(maxsize=4)
def _lpips(network: str, weights: str | None, device: str) -> Distance:
    return Lpips(network, weights=weights).to(device)


@lru_cache(maxsize=4)
def _features(network: str, weights: str, device: str) -> Distance:
    return feature_distance(load_encoder(network, weights).to(device))
