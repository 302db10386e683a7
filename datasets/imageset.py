"""A labelled set of real images, read one at a time: what every reader returns."""

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# What PIL raises for files that are cut short, garbled, or no images at all.
DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageSet:
    """Labelled images of one size. Pixels are read when asked for, so that a large set costs no memory.

    Attributes:
        name: The set's name, e.g. "digits".
        labels: (N,) int64 class indices in [0, len(class_names)).
        groups: N names of label x attribute combinations, e.g. "Blond_Hair=1,Male=0".
        source_ids: N names of where each image comes from, e.g. "digits/00017".
        class_names: What each label means.
        image_shape: (H, W, C) in pixels; C = 1 for grey images.
        load: Position in the original set -> uint8 (H, W, C).
    """

    name: str
    labels: NDArray[np.int64]
    groups: list[str]
    source_ids: list[str]
    class_names: list[str]
    image_shape: tuple[int, int, int]
    load: Callable[[int], NDArray[np.uint8]]

    def __post_init__(self) -> None:
        counts = {"labels": len(self.labels), "groups": len(self.groups), "source_ids": len(self.source_ids)}
        if len(set(counts.values())) != 1:
            raise ValueError(f"ImageSet {self.name} needs one label, group and source id an image, got {counts}.")
        if len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < len(self.class_names):
            raise ValueError(
                f"ImageSet {self.name} has labels {self.labels.min()}..{self.labels.max()}, "
                f"but names {len(self.class_names)} classes; name every class."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> NDArray[np.uint8]:
        """Read one image.

        Returns:
            uint8 (H, W, C) in [0, 255].

        Raises:
            IndexError: `index` is not in [0, N).
            ValueError: The file cannot be decoded, or is of another size; the message names it.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {self.name} does not exist; it has {len(self)} images, 0 first.")
        pixels = self.load(int(index))
        if pixels.shape != self.image_shape:
            raise ValueError(
                f"{self.source_ids[index]} of {self.name} is {pixels.shape}, the set is {self.image_shape} (H, W, C); "
                "resize or remove it."
            )
        return pixels

    def images(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
        """Read several images. Returns uint8 (len(indices), H, W, C). Raises as `image` does."""
        stack = np.empty((len(indices), *self.image_shape), dtype=np.uint8)
        for row, index in enumerate(indices):
            stack[row] = self.image(int(index))
        return stack

    def subset(self, indices: Sequence[int] | NDArray[np.int64]) -> "ImageSet":
        """The images at `indices` as a set of their own, in that order.

        Raises:
            IndexError: An index is not in [0, N).
        """
        chosen = np.asarray(indices, dtype=np.int64)
        if len(chosen) and not 0 <= chosen.min() <= chosen.max() < len(self):
            raise IndexError(
                f"subset of {self.name} asks for {chosen.min()}..{chosen.max()}, it has {len(self)} images."
            )
        return ImageSet(
            name=self.name,
            labels=self.labels[chosen],
            groups=[self.groups[i] for i in chosen],
            source_ids=[self.source_ids[i] for i in chosen],
            class_names=self.class_names,
            image_shape=self.image_shape,
            load=partial(_load_chosen, self.load, chosen),
        )


def _load_chosen(load: Callable[[int], NDArray[np.uint8]], chosen: NDArray[np.int64], index: int) -> NDArray[np.uint8]:
    return load(int(chosen[index]))


def decode_file(path: Path, *, mode: str) -> Image.Image:
    """Decode an image file completely.

    Args:
        path: The file.
        mode: "L" for grey or "RGB".

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not an image, is cut short or damaged; the message names it.
    """
    try:
        with Image.open(path) as image:
            return image.convert(mode)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist; restore it or take it out of the list of images.") from error
    except DECODING_ERRORS as error:
        raise ValueError(f"{path} cannot be decoded as an image ({error}); replace or remove it.") from error


def to_pixels(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of an "L" or "RGB" image as uint8 (H, W, C), C = 1 or 3."""
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels
