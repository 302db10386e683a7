"""Images in a folder: one sub-folder a class, these below train/ and test/, or all in one flat folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.readers.folder_layout import lay_out
from datasets.readers.images.decoding import Header, decode_file, fit_square, is_grey, read_file_header, to_pixels
from datasets.readers.imageset import ImageSet, Problem
from datasets.readers.names.text_forms import name_on_disk

FURTHER_FRAMES = "further frames of an image"
_FLAT_CLASS = "all"


def read_folder(folder: str | Path, *, image_size: int | None = None, classes: Sequence[str] = ()) -> ImageSet:
    """Read images from class-named sub-folders, from such below train/, val/ and test/, or from a flat folder.

    Classes are numbered in the order of their names, as numbers where all are whole numbers; images are sorted by class
    and path. A flat folder has no labels: its images are of class 0, "all", and their source ids hold no slash. What is
    no image is passed over and is among the set's problems. The set is grey (C = 1) where every usable image is, else
    RGB. Headers are read now, pixels when asked for; an image that cannot be read stays in the set, as of any reader.

    Args:
        folder: The folder.
        image_size: Side in pixels of the central square that images are cut and resized to; None takes them as they
            are, all of one size.
        classes: The classes in the order of their labels, of which some may have no folder; other folders are passed
            over. Empty: all folders.

    Returns:
        The set; source ids are paths relative to the folder, in Unicode's composed form as class names are; groups are
            "class=<name>". It has the makers' parts where there are folders of these names, train/ and another;
            without test/, val/ is the test part.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: No usable image, an empty class, images beside class folders, folders inside them, or images of
            different sizes, or a name that is not UTF-8; the message names what lies where.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder; name a folder of images.")
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size must be at least 1 pixel, or None, got {image_size}.")
    layout = lay_out(root, classes=classes)
    paths = [path for path, _, _ in layout.files]
    headers = _headers(paths, root=root)
    width, height = _one_size(headers) if image_size is None else (image_size, image_size)
    grey = is_grey((header, partial(decode_file, path, folder=root, mode="RGB")) for path, header in headers.items())
    class_names = layout.class_names or [_FLAT_CLASS]
    labels = [label for _, label, _ in layout.files]
    return ImageSet(
        name=name_on_disk(root.resolve().name),
        labels=np.array(labels, dtype=np.int64),
        groups=[f"class={class_names[label]}" for label in labels],
        source_ids=[name_on_disk(path.relative_to(root).as_posix()) for path in paths],
        class_names=class_names,
        image_shape=(height, width, 1 if grey else 3),
        load=_Files(root, paths, "L" if grey else "RGB", image_size),
        parts=[part for _, _, part in layout.files] if layout.has_parts else None,
        problems=(*layout.problems, *_further_frames(headers, root=root)),
    )


def is_flat(images: ImageSet) -> bool:
    """Whether a set was read from a folder without class folders, so that its labels mean nothing."""
    return images.class_names == [_FLAT_CLASS] and not any("/" in name for name in images.source_ids)


@dataclass(frozen=True)
class _Files:
    root: Path
    paths: list[Path]
    mode: str
    image_size: int | None

    def __call__(self, index: int) -> NDArray[np.uint8]:
        image = decode_file(self.paths[index], folder=self.root, mode=self.mode)
        return to_pixels(image if self.image_size is None else fit_square(image, self.image_size))


def _headers(paths: list[Path], *, root: Path) -> dict[Path, Header]:
    """The headers of the images that have a readable one.

    Raises:
        ValueError: None has.
    """
    headers, reason = {}, ""
    for path in paths:
        try:
            headers[path] = read_file_header(path, folder=root)
        except (ValueError, OSError) as error:
            reason = reason or str(error)
    if not headers:
        raise ValueError(f"none of the {len(paths)} images in {root} can be read; the first: {reason}")
    return headers


def _one_size(headers: dict[Path, Header]) -> tuple[int, int]:
    (first, header), *others = headers.items()
    for path, other in others:
        if other.size != header.size:
            raise ValueError(
                f"{path} is {other.size[0]} x {other.size[1]} pixels, {first.name} is {header.size[0]} x "
                f"{header.size[1]}; give the side in pixels that all are to be cut and resized to (image_size), or "
                "resize all images to one size."
            )
    return header.size


def _further_frames(headers: dict[Path, Header], *, root: Path) -> list[Problem]:
    return [
        Problem(
            name_on_disk(path.relative_to(root).as_posix()),
            f"has {header.num_frames} frames or pages, of which the first is read.",
            kind=FURTHER_FRAMES,
            on_disk=False,
        )
        for path, header in headers.items()
        if header.num_frames > 1
    ]
