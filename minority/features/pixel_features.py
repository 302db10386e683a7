"""Feature extractors: where images are compared.

An extractor turns images into vectors; distances between vectors stand for differences between images.
"""

import numpy as np
from numpy.typing import NDArray


def pixel_features(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Raw pixels in [0, 1]: right for tiny images that are aligned.

    Args:
        images: (N, H, W, C) uint8.

    Returns:
        (N, H * W * C) float32.
    """
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)
