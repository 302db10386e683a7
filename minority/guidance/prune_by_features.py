"""Prune and branch by where the clean estimates lie among the real images, instead of by the minority metric.

No network calls for weighing: the clean estimate of a chain is placed in feature space, and weighs the more, the
farther it lies from its real neighbours, as long as it stays inside their manifold.

Shapes: B samples, C channels, H x W pixels.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from minority.backbones import Backbone
from minority.diffusion.chain import Chain, Estimate
from minority.diffusion.noise import NoiseSource
from minority.diffusion.pixels import to_pixels
from minority.features.pixel_features import pixel_features
from minority.guidance import Guidance
from minority.guidance.materials import Extractor, Materials
from minority.guidance.prune_and_branch import PruneAndBranch
from minority.neighbours.reference import RealReference


@dataclass(frozen=True, kw_only=True, eq=False)
class PruneByFeatures(PruneAndBranch):
    """Weighs every chain by its clean estimate's neighbours in feature space.

    Attributes:
        reference: The real training images.
        extract: Images (B, H, W, C) uint8 to features (B, D), as the reference was made with.
        realism_floor: Estimates of less realism come last, the least real-looking at the very end.
    """

    reference: RealReference
    extract: Extractor = pixel_features
    realism_floor: float = 1.0

    def ready(self, backbone: Backbone, materials: Materials) -> Guidance:
        """Itself: it has its reference."""
        return self

    def particle_weights(self, estimate: Estimate, chain: Chain, noise: NoiseSource) -> Tensor:
        """Mean distance to the nearest real images, (B,); below 0 where the estimate does not look real."""
        neighbourhood = self.reference.locate(self.extract(to_pixels(chain.space.to_images(estimate.x0_hat))))
        unreal = np.minimum(neighbourhood.realism, self.realism_floor) - self.realism_floor - 1e-6
        return torch.from_numpy(
            np.where(neighbourhood.realism >= self.realism_floor, neighbourhood.knn_distance, unreal)
        )

    @classmethod
    def bind(
        cls, settings: PruneAndBranch, reference: RealReference, *, extract: Extractor = pixel_features
    ) -> "PruneByFeatures":
        """The same settings with the real images at hand."""
        given = {field.name: getattr(settings, field.name) for field in fields(PruneAndBranch)}
        return cls(**given, reference=reference, extract=extract)
