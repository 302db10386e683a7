"""Real images as an array that is read where it is indexed."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.readers.images.image_array import ImageArray
from datasets.readers.imageset import ImageSet
from minority.runtime.image_arrays import Images
from tasks.errors import InputError


class RealImages(ImageArray):
    """Real images; one that cannot be read any more, or has changed, is bad input."""

    def __getitem__(self, indices: Any) -> NDArray[np.uint8]:
        """See `ImageArray`.

        Raises:
            InputError: An image cannot be decoded or has changed; the message names it.
        """
        try:
            return super().__getitem__(indices)
        except ValueError as error:
            raise InputError(str(error)) from error


def images_of(part: ImageSet) -> Images:
    """The images (N, H, W, C) uint8 of a set: in memory where they are small, else read where they are indexed.

    Raises:
        InputError: An image cannot be decoded, or has changed; the message names it.
    """
    images = RealImages(part)
    return images[:] if images.is_held else images
