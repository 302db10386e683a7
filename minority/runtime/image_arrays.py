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
