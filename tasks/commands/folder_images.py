"""Folders of images that a command is given: their pixels, what is passed over, and the labels that they tell."""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.readers.folder import is_flat, read_folder
from datasets.readers.imageset import ImageSet, Problem
from datasets.readers.names.class_names import whole_numbers
from minority.backbones import Backbone
from tasks.errors import InputError

_DRAWN = re.compile(r"[0-9]{6,}-([0-9]+)")  # how `minority sample` names a file: index and label


def open_folder(folder: Path, *, image_size: int | None = None) -> ImageSet:
    """Read what a folder holds (`datasets.readers.folder`).

    Args:
        folder: The folder.
        image_size: Side in pixels that images are cut and resized to; None takes them as they are, all of one size.

    Raises:
        InputError: It is no folder of images.
    """
    try:
        return read_folder(folder, image_size=image_size)
    except (ValueError, FileNotFoundError) as error:
        raise InputError(str(error)) from error


def pixels_of(images: ImageSet) -> NDArray[np.uint8]:
    """All images, uint8 (N, H, W, C).

    Raises:
        InputError: Some cannot be read; one line names the first five and counts all.
    """
    decoded = [pixels for _, pixels in images.decoded()]
    damaged = [entry.reason for entry in decoded if isinstance(entry, Problem)]
    if damaged:
        more = f" ... and {len(damaged) - 5} more" if len(damaged) > 5 else ""
        count = f"{len(damaged)} of {len(images)} images cannot be used: " if len(damaged) > 1 else ""
        raise InputError(f"{count}{' '.join(damaged[:5])}{more}")
    return np.stack([entry for entry in decoded if not isinstance(entry, Problem)])


def passed_over(images: ImageSet, *, folder: Path) -> list[str]:
    """What of a folder was not read: a line for each reason, with how often and an example."""
    by_kind: dict[str, list[str]] = {}
    for problem in images.problems:
        by_kind.setdefault(problem.kind, []).append(problem.source_id)
    return [
        f"{folder}: passed over, {kind}: {len(names)} (such as {names[0]})" for kind, names in sorted(by_kind.items())
    ]


def labels_of(images: ImageSet, model: Backbone, *, folder: Path) -> list[int] | None:
    """The labels that folders or file names give to images; never one that nobody gave.

    Returns:
        One label an image in [0, num_classes); None for an unconditional backbone, and for a flat folder without labels
        where the backbone knows "no label".

    Raises:
        InputError: Folders or names tell no class that the backbone knows.
    """
    if model.num_classes is None:
        return None
    if is_flat(images):
        return _labels_in_names(images, model, folder=folder)
    known, names = model.num_classes, images.class_names
    if len(names) > known:
        raise InputError(f"{folder} has {len(names)} class folders, backbone {model.name} knows {known}.")
    if len(names) == known:
        return [int(label) for label in images.labels]
    numbers = whole_numbers(names)
    if numbers is None:
        raise InputError(
            f"{folder} has {len(names)} class folders, backbone {model.name} knows {known} classes, and the name "
            f"{names[0]!r} tells no number; name each folder by the number of its class, 0 ... {known - 1}."
        )
    _require_known(numbers, model, where=f"{folder} has the class folder")
    return [numbers[label] for label in images.labels]


def no_label_of(model: Backbone) -> int | None:
    """The label by which a class-conditional backbone means none, where it knows one."""
    return None if model.num_classes is None else getattr(model.denoiser, "no_label", None)


def _labels_in_names(images: ImageSet, model: Backbone, *, folder: Path) -> list[int] | None:
    named = [_DRAWN.fullmatch(Path(name).stem) for name in images.source_ids]
    labels = [int(match[1]) for match in named if match is not None]
    if len(labels) == len(images):
        _require_known(labels, model, where=f"{folder} has a file named by the label")
        return labels
    if labels:
        odd = next(name for name, match in zip(images.source_ids, named, strict=True) if match is None)
        raise InputError(
            f"{folder} has {len(labels)} files named by their label, such as 000000-3.png, but {odd} is not; name all "
            f"so, or sort the images into folders named by their class, 0 ... {(model.num_classes or 1) - 1}."
        )
    if no_label_of(model) is None:
        raise InputError(
            f"{folder} has no class folders, and backbone {model.name} needs a label for every image; sort the images "
            f"into folders named by their class, 0 ... {(model.num_classes or 1) - 1}."
        )
    return None


def _require_known(labels: list[int], model: Backbone, *, where: str) -> None:
    known = model.num_classes or 0
    for label in labels:
        if not 0 <= label < known:
            raise InputError(f"{where} {label}, backbone {model.name} knows the classes 0 ... {known - 1}.")
