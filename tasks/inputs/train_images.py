"""The real training images as an array that is read where it is indexed."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.readers.image_array import ImageArray
from tasks.errors import InputError


class TrainImages(ImageArray):
    """The real training images; one that cannot be read any more, or has changed, is bad input."""

    def __getitem__(self, indices: Any) -> NDArray[np.uint8]:
        """See `ImageArray`.

        Raises:
            InputError: An image cannot be decoded or has changed; the message names it.
        """
        try:
            return super().__getitem__(indices)
        except ValueError as error:
            raise InputError(str(error)) from error
