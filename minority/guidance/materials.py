"""What a guidance method may need beside its settings: the real images as a reference, and what it learnt from them.

Shapes: N real images, H x W pixels, C channels, D features.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minority.backbones import Backbone
from minority.diffusion.pixels import from_pixels
from minority.features.pixel_features import pixel_features
from minority.neighbours.reference import RealReference

Extractor = Callable[[NDArray[np.uint8]], NDArray[np.floating]]  # (B, H, W, C) -> (B, D)
#: The tensors of one trained part, by name.
Tensors = Mapping[str, Tensor]
#: The trained parts of one method, by name.
Parts = Mapping[str, Tensors]


@dataclass(frozen=True, eq=False, kw_only=True)
class Materials:
    """What is at hand when a method is made ready for a chain.

    Attributes:
        reference: The real training images in feature space; None where there are none.
        extract: The features that the reference was fitted on.
        parts: What methods with trained parts have learnt, by the method's key.
        device: Where the chain is computed.
    """

    reference: RealReference | None = None
    extract: Extractor = pixel_features
    parts: Mapping[str, Parts] = field(default_factory=dict)
    device: torch.device | str = "cpu"


@dataclass(frozen=True, eq=False, kw_only=True)
class Lessons:
    """What a method learns from, once.

    Attributes:
        backbone: The backbone that will be guided, on `device`.
        images: (N, H, W, C) uint8 real training images.
        labels: (N,) int64 their labels.
        draw_plain: (M,) labels -> (M, H, W, C) uint8 plain samples of the backbone, without any guidance.
        device: Where to compute.
        batch_size: Images a network call.
    """

    backbone: Backbone
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    draw_plain: Callable[[NDArray[np.int64]], NDArray[np.uint8]]
    device: torch.device | str = "cpu"
    batch_size: int = 256

    @cached_property
    def states(self) -> Tensor:
        """(N, *state_shape) the clean states that stand for the real images, on the CPU."""
        return self.encoded(self.images)

    @property
    def condition(self) -> NDArray[np.int64] | None:
        """(N,) the labels where the backbone takes any, else None."""
        return None if self.backbone.num_classes is None else self.labels

    def encoded(self, images: NDArray[np.uint8]) -> Tensor:
        """The clean states of (M, H, W, C) uint8 images, (M, *state_shape), on the CPU."""
        x = from_pixels(images)
        with torch.no_grad():
            return torch.cat([self.backbone.encode(part.to(self.device)).cpu() for part in x.split(self.batch_size)])
