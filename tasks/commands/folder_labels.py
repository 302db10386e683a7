"""The labels of a folder of images, for a backbone that knows classes by number."""

import re
from pathlib import Path

from datasets.readers.class_names import whole_numbers
from datasets.readers.imageset import ImageSet
from minority.backbones import Backbone
from tasks.errors import InputError

_DRAWN = re.compile(r"[0-9]{6,}-([0-9]+)")  # how `minority sample` names a file: index and label


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


def no_label_of(model: Backbone) -> int:
    """The label by which a class-conditional backbone means none.

    Raises:
        InputError: It knows no such label.
    """
    found = getattr(model.denoiser, "no_label", None)
    if found is None:
        raise InputError(f"backbone {model.name} needs a label for every image; give class folders.")
    return int(found)


def is_flat(images: ImageSet) -> bool:
    """Whether a folder that was read has no class folders, so that its labels mean nothing."""
    return not any("/" in name for name in images.source_ids)


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
    if getattr(model.denoiser, "no_label", None) is None:
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
