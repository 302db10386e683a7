"""Labelled images in WebDataset tars of anybody: `<key>.<jpg, jpeg, png or webp>` and `<key>.cls`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.readers.decoding import Header, decode_bytes, fit_square, is_grey, read_header, to_pixels
from datasets.readers.image_files import require_length
from datasets.readers.imageset import ImageSet, Problem
from datasets.readers.tar_index import Member, walk_members

_IMAGES = ("jpg", "jpeg", "png", "webp")


def read_image_tars(
    tars: Sequence[str | Path], *, name: str, class_names: Sequence[str], image_size: int, channels: int | None = 3
) -> ImageSet:
    """Read WebDataset tars, e.g. of ImageNet. Labels are read now by walking the headers, pixels when asked for.

    A sample without image or class, or with a class that has no name, is left out and is among the set's problems; so
    is what follows a damaged header, since a tar cannot be read past it.

    Args:
        tars: Local tar files, in order.
        name: What the set is called.
        class_names: What the numbers in the .cls members mean.
        image_size: Side in pixels of the central square that images are cut and resized to.
        channels: 1 (grey), 3 (RGB), or None: grey where all usable images are, for which they are read now.

    Returns:
        The set; source ids are "<tar's name>/<key>".

    Raises:
        FileNotFoundError: A tar is missing.
        ValueError: A setting that is not allowed, or no sample can be used.
    """
    if image_size < 1 or channels not in {1, 3, None}:
        raise ValueError(f"image_size must be at least 1 and channels 1, 3 or None, got {image_size} and {channels}.")
    found: list[_Place] = []
    problems: list[Problem] = []
    for tar in tars:
        places, bad = _walk(Path(tar), num_classes=len(class_names))
        found += places
        problems += bad
    if not found:
        first = f" (first problem: {problems[0].source_id} {problems[0].reason})" if problems else ""
        raise ValueError(f"the {len(tars)} tars of {name} hold no usable sample{first}.")
    if channels is None:
        channels = 1 if is_grey(_headers(found)) else 3
    return ImageSet(
        name=name,
        labels=np.array([place.label for place in found], dtype=np.int64),
        groups=[f"class={class_names[place.label]}" for place in found],
        source_ids=[f"{place.tar.name}/{place.key}" for place in found],
        class_names=list(class_names),
        image_shape=(image_size, image_size, channels),
        load=_TarImages(found, "L" if channels == 1 else "RGB", image_size),
        problems=tuple(problems),
    )


@dataclass(frozen=True)
class _Place:
    tar: Path
    key: str
    label: int
    offset: int
    size: int

    @property
    def name(self) -> str:
        return f"{self.tar}: {self.key}"

    def read(self) -> bytes:
        require_length(self.name, self.size)
        with self.tar.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def _headers(places: list[_Place]) -> Iterator[tuple[Header, Callable[[], object]]]:
    for place in places:
        try:
            data = place.read()
            yield read_header(data, name=place.name), partial(decode_bytes, data, mode="RGB", name=place.name)
        except ValueError:  # told when its pixels are asked for
            continue


@dataclass(frozen=True)
class _TarImages:
    places: list[_Place]
    mode: str
    image_size: int

    def __call__(self, index: int) -> NDArray[np.uint8]:
        place = self.places[index]
        image = decode_bytes(place.read(), mode=self.mode, name=place.name)
        return to_pixels(fit_square(image, self.image_size))


def _walk(tar: Path, *, num_classes: int) -> tuple[list[_Place], list[Problem]]:
    """The usable samples of a tar, and what is wrong with the others."""
    if not tar.is_file():
        raise FileNotFoundError(f"{tar} does not exist; name tar files.")
    images: dict[str, Member] = {}
    labels: dict[str, bytes] = {}
    problems: list[Problem] = []
    with tar.open("rb") as file:
        try:
            for member in walk_members(file, name=str(tar)):
                folder, _, base = member.name.rpartition("/")
                stem, _, extension = base.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                if extension.lower() in _IMAGES:
                    images.setdefault(key, member)
                elif extension.lower() == "cls":
                    file.seek(member.offset)
                    labels.setdefault(key, file.read(min(member.size, 64)))
        except ValueError as error:
            problems.append(Problem(tar.name, str(error)))
    places = []
    for key in dict.fromkeys((*images, *labels)):
        reason = _reason(key, images=images, labels=labels, num_classes=num_classes)
        if reason:
            problems.append(Problem(f"{tar.name}/{key}", reason))
            continue
        member = images[key]
        places.append(_Place(tar, key, int(labels[key]), member.offset, member.size))
    return places, problems


def _reason(key: str, *, images: dict[str, Member], labels: dict[str, bytes], num_classes: int) -> str:
    if key not in images:
        return "has a class but no image."
    if key not in labels:
        return "has an image but no class."
    digits = labels[key].strip()
    if not digits.isdigit() or len(digits) > 9 or int(digits) >= num_classes:
        return f"has the class {digits[:20]!r}, expected a number below {num_classes}."
    return ""
