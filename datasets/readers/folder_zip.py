"""A zip archive with one folder a class, or with these below train/ and test/, read without being unpacked."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from datasets.readers.folder_layout import HIDDEN, NO_IMAGE, NOT_AMONG_CLASSES, part_of
from datasets.readers.images.decoding import Header, decode_bytes, fit_square, is_grey, read_header, to_pixels
from datasets.readers.images.image_files import open_image_files
from datasets.readers.images.image_names import IMAGE_SUFFIXES, ImageNames
from datasets.readers.imageset import ImageSet, Problem
from datasets.readers.names.class_names import in_class_order
from datasets.readers.names.text_forms import name_on_disk, one_form


@dataclass(frozen=True, kw_only=True)
class ArchivedImages:
    """Which members of an archive are images of which class.

    Attributes:
        wrapper: A folder around all others, with a slash behind it, or "".
        images: (name, class, part) of every image; part "" where folders make none.
        problems: Every other member, and why it is passed over.
    """

    wrapper: str
    images: list[tuple[str, str, str]]
    problems: tuple[Problem, ...]


def read_folder_zip(path: str | Path, *, image_size: int, classes: Sequence[str] = ()) -> ImageSet:
    """Read images from the class folders of a zip archive; a folder around these does not count.

    Args:
        path: The archive.
        image_size: Side in pixels of the central square that images are cut and resized to.
        classes: The classes in the order of their labels; other folders are passed over. Empty: all folders, in the
            order of `in_class_order`.

    Returns:
        The set, grey where every usable image is; source ids are names in the archive, groups "class=<name>".

    Raises:
        FileNotFoundError: There is no such archive.
        ValueError: It is no zip archive, has images that lie in no class folder or deeper, or a class without images.
    """
    if image_size < 1:
        raise ValueError(f"image_size must be at least 1 pixel, got {image_size}.")
    archive = Path(path)
    files = ImageNames(open_image_files(archive))
    archived = archived_images(archive, files.names(), classes=classes)
    class_names = [one_form(name) for name in classes] or in_class_order({name for _, name, _ in archived.images})
    empty = set(class_names) - {name for _, name, _ in archived.images}
    if empty:
        raise ValueError(f"{archive} has no image of class {', '.join(sorted(empty))!r:.100}; correct classes.")
    number = {name: label for label, name in enumerate(class_names)}
    images = sorted(archived.images, key=lambda image: (image[2], number[image[1]], image[0]))
    parts = [part for _, _, part in images]
    channels = 1 if is_grey(_headers(files, [name for name, _, _ in images])) else 3
    return ImageSet(
        name=name_on_disk(archive.stem),
        labels=np.array([number[name] for _, name, _ in images], dtype=np.int64),
        groups=[f"class={name}" for _, name, _ in images],
        source_ids=[name.removeprefix(archived.wrapper) for name, _, _ in images],
        class_names=class_names,
        image_shape=(image_size, image_size, channels),
        load=_ZippedImages(files, [name for name, _, _ in images], "L" if channels == 1 else "RGB", image_size),
        # One part alone divides nothing.
        parts=None if set(parts) in ({""}, {"train"}) else parts,
        problems=archived.problems,
    )


def archived_images(archive: Path, names: Sequence[str], *, classes: Sequence[str] = ()) -> ArchivedImages:
    """Sort the names of an archive's members.

    Raises:
        ValueError: There is no image, or one lies where no class can be told.
    """
    known = {one_form(name) for name in classes}
    problems = []
    pictures: list[PurePosixPath] = []
    for name in names:
        path = PurePosixPath(name)
        if any(part.startswith(".") or part == "__MACOSX" for part in path.parts):
            problems.append(Problem(name, "is hidden.", kind=HIDDEN, on_disk=False))
        elif path.suffix.lower() not in IMAGE_SUFFIXES:
            problems.append(Problem(name, "is no image.", kind=NO_IMAGE, on_disk=False))
        else:
            pictures.append(path)
    if not pictures:
        raise ValueError(f"{archive} holds no image ({len(names)} other files); name an archive of images.")
    tops = Counter(path.parts[0] for path in pictures)
    wrapped = len(tops) == 1 and all(len(path.parts) >= 3 for path in pictures) and part_of(next(iter(tops))) is None
    first = 1 if wrapped else 0
    divided = all(len(path.parts) == first + 3 and part_of(path.parts[first]) is not None for path in pictures)
    images = []
    for path in pictures:
        parts = path.parts[first:]
        if len(parts) != (3 if divided else 2):
            where = "in no class folder" if len(parts) < 2 else "too deep"
            raise ValueError(
                f"{archive}: {path} lies {where}; give the archive one folder a class, or train/ and test/ that hold "
                "these, or name a table of labels."
            )
        if known and parts[-2] not in known:
            reason = f"lies in {parts[-2]}/, which is not among classes."
            problems.append(Problem(str(path), reason, kind=NOT_AMONG_CLASSES))
            continue
        images.append((str(path), parts[-2], (part_of(parts[0]) or "") if divided else ""))
    return ArchivedImages(
        wrapper=f"{pictures[0].parts[0]}/" if wrapped else "", images=images, problems=tuple(problems)
    )


@dataclass(frozen=True)
class _ZippedImages:
    files: ImageNames
    names: list[str]
    mode: str
    image_size: int

    def __call__(self, index: int) -> NDArray[np.uint8]:
        name = self.names[index]
        return to_pixels(fit_square(decode_bytes(self.files.read(name), mode=self.mode, name=name), self.image_size))


def _headers(files: ImageNames, names: Sequence[str]) -> Iterator[tuple[Header, Callable[[], object]]]:
    for name in names:
        try:
            data = files.read(name)
            yield read_header(data, name=name), partial(decode_bytes, data, mode="RGB", name=name)
        except ValueError:  # told when its pixels are asked for
            continue
