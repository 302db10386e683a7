"""Images that need not lie in memory: what a training or a filter asks of an array of them.

Shapes: N images, H x W pixels, C channels.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 4096  # images that are read at once


class Images(Protocol):
    """Images (N, H, W, C) uint8: a numpy array, or something that reads images where it is indexed.

    Attributes:
        shape: (N, H, W, C).
        dtype: uint8.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, C)."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Any, /) -> NDArray[np.uint8]:
        """The images of a slice, of integers (M,) or of booleans (N,): in memory, uint8 (M, H, W, C)."""
        ...


class ChosenImages:
    """Some images of others, read where they are indexed.

    Args:
        images: (N, H, W, C).
        positions: (M,) integers in [0, N).

    Attributes:
        shape: (M, H, W, C).
        dtype: uint8.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, images: Images, positions: NDArray[np.int64]) -> None:
        self._images, self._positions = images, positions
        self.shape = (len(positions), *images.shape[1:])

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, indices: Any) -> NDArray[np.uint8]:
        """The images of a slice, of integers or of booleans: in memory, uint8 (number of indices, H, W, C)."""
        return self._images[self._positions[indices]]


class JoinedImages:
    """The images of several arrays as one, read where they are indexed.

    Args:
        parts: Arrays of images (N_i, H, W, C) of one shape, at least one.

    Attributes:
        shape: (N, H, W, C), N the sum of the N_i.
        dtype: uint8.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, parts: Sequence[Images]) -> None:
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in parts])
        self.shape = (int(self._ends[-1]), *parts[0].shape[1:])

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, indices: Any) -> NDArray[np.uint8]:
        """The images of a slice, of integers or of booleans: in memory, uint8 (number of indices, H, W, C)."""
        wanted = np.arange(len(self))[indices]
        found = np.empty((len(wanted), *self.shape[1:]), dtype=np.uint8)
        of_part = np.searchsorted(self._ends, wanted, side="right")
        for i in np.unique(of_part):
            rows = np.flatnonzero(of_part == i)
            found[rows] = self._parts[i][wanted[rows] - (self._ends[i] - len(self._parts[i]))]
        return found


class RepeatedChannel:
    """Grey images as images of three equal channels, made where they are indexed.

    Args:
        images: (N, H, W, 1).

    Attributes:
        shape: (N, H, W, 3).
        dtype: uint8.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, images: Images) -> None:
        self._images = images
        self.shape = (*images.shape[:3], 3)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, indices: Any) -> NDArray[np.uint8]:
        """The images of a slice, of integers or of booleans: in memory, uint8 (number of indices, H, W, 3)."""
        return np.repeat(self._images[indices], 3, axis=3)


def in_colour(images: Images) -> Images:
    """Images of three channels: grey ones with three equal ones, in memory where they are, others as they are."""
    if images.shape[3] == 3:
        return images
    return np.repeat(images, 3, axis=3) if isinstance(images, np.ndarray) else RepeatedChannel(images)


def choose(images: Images, positions: NDArray[np.int64]) -> Images:
    """Some images: of an array in memory another one, else a view that reads them where it is indexed."""
    return images[positions] if isinstance(images, np.ndarray) else ChosenImages(images, positions)


def join(parts: Sequence[Images]) -> Images:
    """The images of several arrays, one after the other: in memory where all of them are, else read where indexed."""
    in_memory = [part for part in parts if isinstance(part, np.ndarray)]
    return np.concatenate(in_memory) if len(in_memory) == len(parts) else JoinedImages(parts)


def content_key(images: Images) -> bytes:
    """Bytes that tell images with other pixels apart: those of an array in memory, a digest of what is read."""
    return images.tobytes() if isinstance(images, np.ndarray) else content_digest(images).encode()


def content_digest(images: Images) -> str:
    """64 hex digits over the shape and the pixels of images, the same wherever they lie.

    Images that know their own digest (an attribute `digest`) are not read for it.
    """
    known: str | None = getattr(images, "digest", None)
    if known is not None:
        return known
    digest = hashlib.sha256(repr(tuple(images.shape)).encode())
    for start in range(0, len(images), _AT_ONCE):
        for image in images[start : start + _AT_ONCE]:
            digest.update(hashlib.blake2b(repr(image.shape).encode() + image.tobytes(), digest_size=16).digest())
    return digest.hexdigest()


def choose_images(count: int, *, most: int, seed: int | Sequence[int]) -> NDArray[np.int64]:
    """Positions of at most so many of some images, drawn evenly, ascending; of all where they are no more.

    Args:
        count: How many there are.
        most: How many are wanted, at most.
        seed: Decides which.
    """
    return np.sort(np.random.default_rng(seed).choice(count, size=min(count, most), replace=False))
