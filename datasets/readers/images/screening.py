"""Reading every image of a set once, before work begins: which cannot be read, and which are equal pixel by pixel."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from datasets.readers.images.image_digest import DIGEST_BYTES, digest_of_pixels
from datasets.readers.imageset import ImageSet

_AT_ONCE = 512
_MOST_THREADS = 8


@dataclass(frozen=True, kw_only=True)
class Screening:
    """What reading every image of several parts once showed.

    Attributes:
        unreadable: Part -> {position in it: the reason, in one line}.
        num_equal_sets: How many sets of two or more images have equal pixels.
        num_equal_across_parts: How many of these sets have images in two parts.
        example: Source ids of one such set, those in two parts first; empty where there is none.
        digests: Part -> (N, 16) uint8 of its images (image_digest.py), 0 for those that cannot be read.
    """

    unreadable: Mapping[str, Mapping[int, str]]
    num_equal_sets: int = 0
    num_equal_across_parts: int = 0
    example: tuple[str, ...] = ()
    digests: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict, compare=False)

    def to_notes(self) -> list[str]:
        """A sentence where images are equal."""
        if not self.num_equal_sets:
            return []
        named = " and ".join(map(repr, self.example))
        return [
            f"{self.num_equal_sets:,} sets of images are equal pixel by pixel, {self.num_equal_across_parts:,} of them "
            f"in two parts, e.g. {named}."
        ]


def screen(parts: Mapping[str, ImageSet]) -> Screening:
    """Read every image once, on several threads, and keep 16 bytes of each.

    Args:
        parts: Part -> its images.

    Returns:
        What was found. An image that cannot be read raises nothing, whatever is wrong with its file.
    """
    unreadable: dict[str, dict[int, str]] = {name: {} for name in parts}
    digests = {name: np.zeros((len(part), DIGEST_BYTES), dtype=np.uint8) for name, part in parts.items()}
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        for name, part in parts.items():
            for start in range(0, len(part), _AT_ONCE):
                indices = range(start, min(start + _AT_ONCE, len(part)))
                for index, outcome in zip(indices, pool.map(partial(_look, part), indices), strict=True):
                    if isinstance(outcome, str):
                        unreadable[name][index] = outcome
                    else:
                        digests[name][index] = np.frombuffer(outcome, dtype=np.uint8)
    equal, across, example = _equal(parts, digests, unreadable)
    return Screening(
        unreadable=unreadable,
        num_equal_sets=equal,
        num_equal_across_parts=across,
        example=example,
        digests=digests,
    )


def _look(part: ImageSet, index: int) -> bytes | str:
    """A digest of the pixels, or why there are none."""
    try:
        pixels = part.image(index)
    except (ValueError, OSError) as error:
        return " ".join(str(error).split())
    return digest_of_pixels(pixels)


def _equal(
    parts: Mapping[str, ImageSet],
    digests: Mapping[str, NDArray[np.uint8]],
    unreadable: Mapping[str, Mapping[int, str]],
) -> tuple[int, int, tuple[str, ...]]:
    """Number of sets of equal images, of those in two parts, and the source ids of one."""
    readable = np.concatenate([_readable(len(part), unreadable[name]) for name, part in parts.items()])
    if not readable.any():
        return 0, 0, ()
    rows = np.concatenate([digests[name] for name in parts])[readable]
    kept = np.flatnonzero(readable)
    part_of = np.repeat(np.arange(len(parts)), [len(part) for part in parts.values()])[readable]
    source_ids = [source_id for part in parts.values() for source_id in part.source_ids]
    _, which, counts = np.unique(rows.view(f"V{DIGEST_BYTES}").ravel(), return_inverse=True, return_counts=True)
    lowest, highest = np.full(len(counts), len(parts)), np.full(len(counts), -1)
    np.minimum.at(lowest, which, part_of)
    np.maximum.at(highest, which, part_of)
    repeated = np.flatnonzero(counts > 1)
    across = np.flatnonzero((counts > 1) & (lowest < highest))
    if len(repeated) == 0:
        return 0, 0, ()
    # The set whose first image comes first, so that the order of the digests does not matter.
    chosen = across if len(across) else repeated
    members = np.flatnonzero(which == which[np.isin(which, chosen).argmax()])
    elsewhere = members[part_of[members] != part_of[members[0]]]
    pair = (members[0], elsewhere[0] if len(elsewhere) else members[1])
    return len(repeated), len(across), tuple(source_ids[kept[row]] for row in pair)


def _readable(count: int, unreadable: Mapping[int, str]) -> NDArray[np.bool_]:
    mask = np.ones(count, dtype=bool)
    mask[list(unreadable)] = False
    return mask
