"""A digest of real images: their labels, groups, ids and pixels, taken while they are read anyway.

Whoever has evaluated candidates by a set must not meet other pixels under its names later: an image that has changed
since it was first read in this process is refused.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from datasets.readers.imageset import ImageSet

#: Of the digest of one image.
DIGEST_BYTES = 16


class RememberedPixels:
    """Loads images as another loader does, and remembers a digest of each that it has loaded.

    Args:
        load: Position -> uint8 (H, W, C).
        names: What the images are called, by position.
        digests: (N, 16) uint8, their digests where they are known already.
    """

    def __init__(
        self,
        load: Callable[[int], NDArray[np.uint8]],
        names: list[str],
        digests: NDArray[np.uint8] | None = None,
    ) -> None:
        self._load, self._names = load, names
        self._digests = np.zeros((len(names), DIGEST_BYTES), dtype=np.uint8) if digests is None else digests.copy()
        self._known = np.full(len(names), digests is not None, dtype=np.bool_)

    def __call__(self, index: int) -> NDArray[np.uint8]:
        """Load an image.

        Raises:
            ValueError: It has other pixels than when it was first loaded, or cannot be decoded.
        """
        pixels = self._load(index)
        digest = np.frombuffer(digest_of_pixels(pixels), dtype=np.uint8)
        if not self._known[index]:
            self._digests[index] = digest
            self._known[index] = True
        elif not np.array_equal(self._digests[index], digest):
            raise ValueError(
                f"{self._names[index]} has changed since this run first read it; bring the image back as it was, or "
                "run again with the images as they are now, which is another run."
            )
        return pixels

    def digest(self, index: int) -> bytes:
        """16 bytes over shape and pixels of an image, which is loaded where that has not been done yet."""
        if not self._known[index]:
            self(index)
        return self._digests[index].tobytes()


def remember_pixels(images: ImageSet, digests: NDArray[np.uint8] | None = None) -> ImageSet:
    """The same set, whose images are digested when they are first read and refused where they change later.

    Args:
        images: The set.
        digests: (N, 16) uint8, what `digest_of_pixels` said of each image when it was read before.
    """
    return replace(images, load=RememberedPixels(images.load, images.source_ids, digests))


def pixels_digest(images: ImageSet) -> Iterator[bytes]:
    """16 bytes over shape and pixels of every image, in order.

    Reads every image, one at a time; of sets from `remember_pixels` only those that have not been read yet.

    Raises:
        ValueError: An image cannot be decoded, or has changed; the message names it.
    """
    remembered = images.load
    for index in range(len(images)):
        if isinstance(remembered, RememberedPixels):
            yield remembered.digest(index)
        else:
            yield digest_of_pixels(images.image(index))


def image_digest(parts: Mapping[str, ImageSet]) -> str:
    """Digest over labels, class names, groups, ids, pixels and masks of some parts of a set.

    Reads every image, one at a time; of sets from `remember_pixels` only those that have not been read yet.

    Args:
        parts: Name of each part -> its images, whose order counts.

    Returns:
        64 hex digits.

    Raises:
        ValueError: An image cannot be decoded, or has changed; the message names it.
    """
    digest = hashlib.sha256()
    for name, images in parts.items():
        facts = [name, len(images), list(images.image_shape), images.class_names, images.groups, images.source_ids]
        digest.update(json.dumps(facts).encode())
        digest.update(images.labels.astype("<i8").tobytes())
        for pixels in pixels_digest(images):
            digest.update(pixels)
        for mask in _masks(images):
            digest.update(mask)
    return digest.hexdigest()


def _masks(images: ImageSet) -> Iterator[bytes]:
    """Position and mask of every image that has one; nothing of a set without masks."""
    for index in np.flatnonzero(images.has_mask) if images.has_mask is not None else ():
        yield f"mask {index}".encode()
        yield np.packbits(images.mask(int(index))).tobytes()


def digest_of_pixels(pixels: NDArray[np.uint8]) -> bytes:
    """16 bytes over shape and pixels of an image (H, W, C) uint8."""
    return hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=DIGEST_BYTES).digest()
