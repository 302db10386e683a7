"""Features of torchvision's classifiers, from weights on disk."""

import torch

from minority.diffusion.pixels import from_pixels
from minority.features.encoders import load_encoder
from minority.features.extractor import NetworkExtractor
from minority.weights import file_sha256, find_weights


def torchvision_extractor(
    network: str,
    weights: str,
    *,
    sha256: str | None = None,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
) -> NetworkExtractor:
    """A classifier of torchvision without its last layer.

    Args:
        network: As torchvision calls it, for example "resnet50".
        weights: File name or URL of the weights; a URL is fetched once and kept in a cache.
        sha256: Checksum of the weights.
        batch_size: Images a call.
        device: Where to compute.

    Raises:
        WeightsError: Where the network is unknown, or the weights are missing or do not fit.
    """
    path = find_weights(weights, sha256=sha256)
    return NetworkExtractor(
        load_encoder(network, path),
        from_pixels,
        recipe=f"torchvision-{network}-{file_sha256(path)[:16]}",
        batch_size=batch_size,
        device=device,
    )
