"""The images of a set as an array whose pixels are read where it is indexed, so that a set need not fit into memory."""

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from datasets.readers.images.image_digest import pixels_digest
from datasets.readers.imageset import ImageSet

#: Bytes of pixels up to which a set is held in memory once it has been read.
HELD_BYTES = 2**30
_MOST_THREADS = 8
_FEW = 32  # images that are read without threads


class ImageArray:
    """Images as a uint8 array (N, H, W, C) that is read image by image.

    It knows what training and evaluating ask of an array: `shape`, `dtype`, `len` and indexing by a slice or by
    integers, which gives an array in memory. Small sets are held once they have been read; of larger ones nothing is.

    Args:
        images: The set.
        held_bytes: Bytes of pixels up to which the set is held.

    Attributes:
        shape: (N, H, W, C).
        dtype: uint8.
        is_held: Whether the set is small enough to be held once it has been read.

    Example:
        >>> from datasets.readers.digits import read_digits
        >>> digits = ImageArray(read_digits())
        >>> digits.shape, digits[10:12].shape
        ((1797, 8, 8, 1), (2, 8, 8, 1))
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, images: ImageSet, *, held_bytes: int = HELD_BYTES) -> None:
        self.images = images
        self.shape = (len(images), *images.image_shape)
        self.is_held = int(np.prod(self.shape, dtype=np.int64)) <= held_bytes
        self._pixels: NDArray[np.uint8] | None = None
        self._reading = threading.Lock()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, indices: "slice | NDArray[np.int64] | NDArray[np.bool_]") -> NDArray[np.uint8]:
        """Read images.

        Args:
            indices: A slice, integers in [-N, N), or (N,) booleans.

        Returns:
            uint8 (number of indices, H, W, C).

        Raises:
            IndexError: An index is not in [-N, N).
            ValueError: An image cannot be decoded or has changed; the message names it.
        """
        if self.is_held:
            return self._all()[indices]
        return self._read(np.arange(len(self))[indices])

    @cached_property
    def digest(self) -> str:
        """64 hex digits over shape and pixels of all images; reads those that have not been read yet, one at a time."""
        digest = hashlib.sha256(repr(self.shape).encode())
        for pixels in pixels_digest(self.images):
            digest.update(pixels)
        return digest.hexdigest()

    def _all(self) -> NDArray[np.uint8]:
        with self._reading:
            if self._pixels is None:
                self._pixels = self._read(np.arange(len(self)))
            return self._pixels

    def _read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        if len(indices) <= _FEW:
            return self.images.images(indices)
        pixels = np.empty((len(indices), *self.shape[1:]), dtype=np.uint8)

        def read(row: int) -> None:
            pixels[row] = self.images.image(int(indices[row]))

        with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
            list(pool.map(read, range(len(indices))))
        return pixels
