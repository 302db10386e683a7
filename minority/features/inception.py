"""The Inception features of FID and of sFID, with clean-fid's resizing and network (Parmar et al., CVPR 2022).

FID takes the pooled features, sFID the first seven channels of the maps of the layer mixed_6/conv, which know where
things are (Nash et al., ICML 2021).

The weights are the TorchScript file inception-2015-12-05.pt that clean-fid uses. TorchScript is a program, so take it
from a place you trust, and give its checksum.
"""

import warnings
from functools import reduce

import numpy as np
import torch
from torch import Tensor, nn

from minority.features.extractor import NetworkExtractor, UInt8
from minority.weights import WeightsError, file_sha256, find_weights

WEIGHTS = "inception-2015-12-05.pt"

#: The layers up to the maps of sFID, by their names in the file.
_TO_MAPS = (
    "conv",
    "conv_1",
    "conv_2",
    "pool0",
    "conv_3",
    "conv_4",
    "pool1",
    "mixed",
    *(f"mixed_{i}" for i in range(1, 6)),
    "mixed_6.conv",
)


class InceptionPool(nn.Module):
    """The network behind its own normalisation: (B, 3, 299, 299) in [0, 255] -> (B, 2048)."""

    def __init__(self, scripted: nn.Module) -> None:
        super().__init__()
        layers = scripted.layers
        assert isinstance(layers, nn.Module), "a TorchScript program's parts are modules"
        self.layers = layers

    def forward(self, images: Tensor) -> Tensor:
        """The pooled features."""
        features: Tensor = self.layers((images - 128) / 128)
        return features.flatten(1)


class InceptionMaps(nn.Module):
    """The maps of mixed_6/conv: (B, 3, 299, 299) in [0, 255] -> (B, 192, 17, 17)."""

    def __init__(self, scripted: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_part(scripted, f"layers.{name}") for name in _TO_MAPS)

    def forward(self, images: Tensor) -> Tensor:
        """The maps."""
        maps = (images - 128) / 128
        for layer in self.layers:
            maps = layer(maps)
        return maps


def _part(scripted: nn.Module, path: str) -> nn.Module:
    # A TorchScript program has no get_submodule.
    part: nn.Module = reduce(getattr, path.split("."), scripted)
    return part


def inception_extractor(
    weights: str = WEIGHTS,
    *,
    sha256: str | None = None,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
) -> NetworkExtractor:
    """Inception as clean-fid's mode "clean" asks it.

    Args:
        weights: File name or URL of the weights; a URL is fetched once and kept in a cache.
        sha256: Checksum of the weights.
        batch_size: Images a call.
        device: Where to compute.

    Raises:
        WeightsError: Where the weights are missing, or are not that network.
    """
    path = find_weights(weights, sha256=sha256)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # clean-fid's file is what it is: TorchScript
            scripted = torch.jit.load(path, map_location="cpu")
        network, maps = InceptionPool(scripted), InceptionMaps(scripted).eval().to(device)
    except (RuntimeError, AttributeError) as error:
        raise WeightsError(f"{path} is not the TorchScript file {WEIGHTS} of clean-fid; fetch that one.") from error
    return NetworkExtractor(
        network,
        resized_as_clean_fid,
        recipe=f"inception-{file_sha256(path)[:16]}",
        batch_size=batch_size,
        device=device,
        maps=maps,
    )


def resized_as_clean_fid(images: UInt8) -> Tensor:
    """(B, 3, 299, 299) float32 in [0, 255]: Pillow's bicubic filter on floats; grey images become RGB."""
    from cleanfid.resize import build_resizer  # slow to import

    resize = build_resizer("clean")
    rgb = np.repeat(images, 3, axis=3) if images.shape[3] == 1 else images
    return torch.from_numpy(np.stack([resize(image) for image in rgb])).permute(0, 3, 1, 2)
