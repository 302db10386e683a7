"""The contract of feature extractors, and the batch loop of those that are networks."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from minority.runtime.progress import counted

_SPATIAL_CHANNELS = 7  # as many as sFID takes of its network's maps

UInt8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]


class Extractor(Protocol):
    """Turns images into vectors; distances between vectors stand for differences between images.

    The features of an image depend on that image alone, up to the last bits where batches of another size are
    computed by other kernels.

    Attributes:
        recipe: Names the network, its weights and everything else that decides the features: equal recipes give equal
            features, so features are kept under this name.
    """

    recipe: str

    def __call__(self, images: UInt8) -> Float32:
        """Features (N, D) of images (N, H, W, C) uint8."""
        ...


class NetworkExtractor:
    """A network as an extractor.

    Args:
        network: Images as `prepare` makes them -> (B, D).
        prepare: (B, H, W, C) uint8 -> the network's input, on the CPU.
        recipe: What decides the features, as text; it is hashed with them.
        batch_size: Images a call.
        device: Where to compute.
        maps: Input -> (B, C, h, w), where the network has maps that know where things are.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        prepare: Callable[[UInt8], Tensor],
        *,
        recipe: str,
        batch_size: int = 64,
        device: torch.device | str = "cpu",
        maps: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.recipe, self.maps = recipe, maps
        self.network = network.eval().to(device) if isinstance(network, nn.Module) else network
        self.prepare, self.batch_size, self.device = prepare, batch_size, device

    def __call__(self, images: UInt8) -> Float32:
        """Features (N, D) of images (N, H, W, C) uint8.

        Raises:
            ValueError: For no images, or images of another type or shape.
        """
        return self._through(self.network, images)

    def spatial(self, images: UInt8) -> Float32 | None:
        """The first seven maps, pixel by pixel: the features of sFID (Nash et al., ICML 2021).

        Returns:
            (N, 7 * h * w); None where the network has no maps.
        """
        maps = self.maps
        return None if maps is None else self._through(lambda x: maps(x)[:, :_SPATIAL_CHANNELS], images)

    @torch.no_grad()
    def _through(self, network: Callable[[Tensor], Tensor], images: UInt8) -> Float32:
        if images.dtype != np.uint8 or images.ndim != 4 or len(images) == 0:
            raise ValueError(f"extractors need uint8 images (N, H, W, C), N >= 1, got {images.dtype} {images.shape}.")
        features = []
        with counted("features", unit="images") as count:
            for start in range(0, len(images), self.batch_size):
                batch = images[start : start + self.batch_size]
                features.append(network(self.prepare(batch).to(self.device)).float().cpu())
                count(start + len(batch), len(images))
        return torch.cat([part.flatten(1) for part in features]).numpy()
