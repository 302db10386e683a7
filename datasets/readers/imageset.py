"""A labelled set of real images, read one at a time: what every reader returns."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

PARTS = ("train", "validation", "test")
DAMAGED_IMAGE = "image that cannot be read"
_Pixel = TypeVar("_Pixel", np.uint8, np.bool_)


@dataclass(frozen=True)
class Problem:
    """An image or an annotation that cannot be used.

    Attributes:
        source_id: Where it comes from.
        reason: Why, in one line.
        kind: What such reasons are counted under.
        on_disk: Whether there is an image that for this reason is in no part.
        is_row: Whether there is a row of a table that for this reason is not used.
    """

    source_id: str
    reason: str
    kind: str = DAMAGED_IMAGE
    on_disk: bool = True
    is_row: bool = False


def first_of(problems: Sequence[Problem]) -> str:
    """In brackets, how many problems there are and the first of them, for a message; "" where there is none."""
    if not problems:
        return ""
    return f" ({len(problems)} problems, the first: {problems[0].source_id} {problems[0].reason.rstrip('.')})"


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
        identities: N names of what is shown (a patient, a lesion, a person), or None where the set does not say. Images
            of one identity belong in one part of a split.
        attributes: Attribute name -> N values; None where a value is missing.
        parts: N names of the part that the set's makers gave each image to ("train", "validation", "test", or "" for
            none of them), or None where they gave none.
        problems: Annotations that the reader left out, with the reason; they are not among the N.
        num_beyond_cap: Images on disk that a cap of the reader's (max_images) left aside; they are not among the N.
        has_mask: (N,) which images have a mask; None where the set has no masks.
        load_mask: Position in the original set -> (H, W) bool, True where an edit may redraw the image.
    """

    name: str
    labels: NDArray[np.int64]
    groups: list[str]
    source_ids: list[str]
    class_names: list[str]
    image_shape: tuple[int, int, int]
    load: Callable[[int], NDArray[np.uint8]]
    identities: list[str] | None = None
    attributes: Mapping[str, list[str | None]] = field(default_factory=dict)
    parts: list[str] | None = None
    problems: tuple[Problem, ...] = ()
    num_beyond_cap: int = 0
    has_mask: NDArray[np.bool_] | None = None
    load_mask: Callable[[int], NDArray[np.bool_]] | None = None

    def __post_init__(self) -> None:
        counts = {"labels": len(self.labels), "groups": len(self.groups), "source_ids": len(self.source_ids)}
        counts |= {f"attribute {name}": len(values) for name, values in self.attributes.items()}
        counts |= {"identities": len(self.identities)} if self.identities is not None else {}
        counts |= {"parts": len(self.parts)} if self.parts is not None else {}
        counts |= {"has_mask": len(self.has_mask)} if self.has_mask is not None else {}
        if len(set(counts.values())) != 1:
            raise ValueError(f"ImageSet {self.name} needs one label, group and source id an image, got {counts}.")
        odd = set(self.parts or ()) - {*PARTS, ""}
        if odd:
            raise ValueError(f"ImageSet {self.name} has the part {min(odd)!r}; parts are {', '.join(PARTS)}, or empty.")
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

    def mask(self, index: int) -> NDArray[np.bool_]:
        """Where an edit may redraw an image, (H, W) bool.

        Raises:
            ValueError: The image has no mask, or the mask cannot be used; the message names it.
        """
        if self.has_mask is None or self.load_mask is None or not self.has_mask[index]:
            raise ValueError(f"{self.source_ids[index]} of {self.name} has no mask.")
        mask = self.load_mask(int(index))
        if mask.shape != self.image_shape[:2]:
            raise ValueError(f"the mask of {self.source_ids[index]} is {mask.shape}, its image {self.image_shape[:2]}.")
        return mask

    def decoded(
        self, indices: Sequence[int] | NDArray[np.int64] | None = None
    ) -> Iterator[tuple[int, NDArray[np.uint8] | Problem]]:
        """Read images one by one; one that cannot be read is a row with a reason, not the end.

        Args:
            indices: Positions in [0, N); all of them where not given.

        Yields:
            Each index with its pixels, uint8 (H, W, C), or with the problem.
        """
        for index in range(len(self)) if indices is None else indices:
            try:
                yield int(index), self.image(int(index))
            except (ValueError, OSError) as error:
                yield int(index), Problem(self.source_ids[index], str(error))

    def readable(
        self, indices: Sequence[int] | NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int64], list[Problem]]:
        """Which images can be decoded. Reads all of them once.

        Args:
            indices: Positions in [0, N); all of them where not given.

        Returns:
            The positions of the good ones, in the order asked for, and one problem for each of the others.
        """
        good, problems = [], []
        for index, decoded in self.decoded(indices):
            if isinstance(decoded, Problem):
                problems.append(decoded)
            else:
                good.append(index)
        return np.array(good, dtype=np.int64), problems

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
            identities=None if self.identities is None else [self.identities[i] for i in chosen],
            attributes={name: [values[i] for i in chosen] for name, values in self.attributes.items()},
            parts=None if self.parts is None else [self.parts[i] for i in chosen],
            problems=self.problems,
            num_beyond_cap=self.num_beyond_cap,
            has_mask=None if self.has_mask is None else self.has_mask[chosen],
            load_mask=None if self.load_mask is None else partial(_load_chosen, self.load_mask, chosen),
        )


def _load_chosen(load: Callable[[int], NDArray[_Pixel]], chosen: NDArray[np.int64], index: int) -> NDArray[_Pixel]:
    return load(int(chosen[index]))
