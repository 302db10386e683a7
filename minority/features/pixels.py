"""Raw pixels as features: right for tiny images that are aligned."""

from minority.features.extractor import Float32
from minority.features.pixel_features import pixel_features
from minority.runtime.image_arrays import Images


class Pixels:
    """Pixels in [0, 1], (N, H * W * C)."""

    recipe = "pixels"

    def __call__(self, images: Images) -> Float32:
        """Features of images (N, H, W, C) uint8."""
        return pixel_features(images[:])
