"""The 1,797 handwritten digit scans, 8 x 8 pixels, that ship inside scikit-learn: real data without a download.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998
(its test part), licence CC BY 4.0.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from datasets.readers.imageset import ImageSet

LICENCE = (
    "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning Repository (1998), "
    "CC BY 4.0, as shipped with scikit-learn."
)


def read_digits() -> ImageSet:
    """Read the digits as grey images, uint8 (8, 8, 1). Ink is bright: the scans' 0..16 are scaled to 0..255.

    Example:
        >>> digits = read_digits()
        >>> len(digits), digits.image_shape
        (1797, (8, 8, 1))
        >>> digits.groups[0]
        'digit=0'
    """
    scans = load_digits()
    pixels = np.round(scans.images * (255.0 / 16.0)).astype(np.uint8)[:, :, :, np.newaxis]  # (N, 8, 8, 1)
    labels = scans.target.astype(np.int64)
    class_names = [str(digit) for digit in range(10)]
    return ImageSet(
        name="digits",
        labels=labels,
        groups=[f"digit={class_names[label]}" for label in labels],
        source_ids=[f"digits/{position:05d}" for position in range(len(labels))],
        class_names=class_names,
        image_shape=(8, 8, 1),
        load=_Scans(pixels),
    )


class _Scans:
    """Hands out copies, so that nobody can paint over the set."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self._pixels = pixels  # (N, 8, 8, 1)

    def __call__(self, index: int) -> NDArray[np.uint8]:
        return self._pixels[index].copy()
