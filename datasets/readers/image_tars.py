"""Labelled images in WebDataset tars of anybody: `<key>.<jpg, jpeg, png or webp>` and `<key>.cls`.

The key of a member is its name up to the first dot behind the last slash, the rest is its extension, as WebDataset has
it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.readers.images.decoding import Header, decode_bytes, fit_square, is_grey, read_header, to_pixels
from datasets.readers.images.image_files import require_inside, require_length
from datasets.readers.images.image_names import IMAGE_SUFFIXES
from datasets.readers.imageset import ImageSet, Problem, first_of
from datasets.readers.names.text_forms import loose_form, one_form
from datasets.readers.tars.tar_index import IMAGE_EXTENSIONS, Member, walk_members
from datasets.readers.tars.tar_pattern import files_of
from datasets.storage.names import require_name

_NUMBERED = "cls"


@dataclass(frozen=True, kw_only=True)
class TarSettings:
    """How a folder of tars is read.

    Attributes:
        classes: What the numbers in the .cls members mean, in their order; or the words that other label members hold.
        name: The set's name: small letters, digits, dot, _ and -.
        pattern: Which files of the folder are the tars, e.g. "*.tar" or "train-{000..127}.tar"; "**/" looks into its
            folders.
        image_extensions: Extensions of images, without the dot.
        label_extension: Extension of labels: "cls" for numbers, another for class names, e.g. "txt".
        channels: 1 (grey) or 3 (RGB).
    """

    classes: tuple[str, ...]
    name: str = "tars"
    pattern: str = "*.tar"
    image_extensions: tuple[str, ...] = IMAGE_EXTENSIONS
    label_extension: str = _NUMBERED
    channels: int = 3

    def __post_init__(self) -> None:
        require_name("TarSettings.name", self.name)
        if not self.classes:
            raise ValueError("TarSettings.classes is empty; name the classes in the order of their numbers.")
        if not self.pattern or self.pattern.startswith("/") or ".." in self.pattern.split("/"):
            raise ValueError(f"TarSettings.pattern must name files below the folder, got {self.pattern!r:.80}.")


def read_tar_folder(folder: str | Path, settings: TarSettings, *, image_size: int) -> ImageSet:
    """Read the tars of a folder, sorted by name, or one tar file, as `read_image_tars` does.

    Args:
        folder: The folder, or the file.
        settings: Which tars, and what is in them.
        image_size: Side in pixels of the central square that images are cut and resized to.

    Raises:
        FileNotFoundError: There is no such folder, or no such tar in it.
        ValueError: A tar is a link that leads out of the folder, or a class has no sample; or as `read_image_tars`.
    """
    root = Path(folder)
    tars = [root] if root.is_file() else files_of(root, settings.pattern)
    for tar in tars:
        require_inside(tar, tar.parent if tar is root else root)
    images = read_image_tars(
        tars,
        name=settings.name,
        class_names=settings.classes,
        image_size=image_size,
        channels=settings.channels,
        image_extensions=settings.image_extensions,
        label_extension=settings.label_extension,
    )
    present = set(images.labels.tolist())
    empty = [name for label, name in enumerate(images.class_names) if label not in present]
    if empty:
        raise ValueError(
            f"{root} holds no usable sample of class {', '.join(empty)!r:.100}{first_of(images.problems)}; "
            "correct the classes or the tars."
        )
    return images


def read_image_tars(
    tars: Sequence[str | Path],
    *,
    name: str,
    class_names: Sequence[str],
    image_size: int,
    channels: int | None = 3,
    image_extensions: Sequence[str] = IMAGE_EXTENSIONS,
    label_extension: str = _NUMBERED,
) -> ImageSet:
    """Read WebDataset tars, e.g. of ImageNet. Labels are read now by walking the headers, pixels when asked for.

    A sample without image or class, with an empty one, with two of one kind, with a dot in its key, or with a class
    that has no name, is left out and is among the set's problems; so are members that are no files, and what follows a
    damaged header, since a tar cannot be read past it. Further members of a usable sample (.json, .txt) and what macOS
    adds (._name) are passed over.

    Args:
        tars: Local tar files, in order.
        name: What the set is called.
        class_names: What the numbers in the .cls members mean; or the words that other label members hold.
        image_size: Side in pixels of the central square that images are cut and resized to.
        channels: 1 (grey), 3 (RGB), or None: grey where all usable images are, for which they are read now.
        image_extensions: Extensions of images, without the dot, in small letters.
        label_extension: Extension of labels: "cls" for numbers in [0, len(class_names)), another for class names.

    Returns:
        The set; source ids are "<tar's name>/<key>". Keys and class names are in Unicode's composed form (NFC).

    Raises:
        FileNotFoundError: A tar is missing.
        ValueError: A setting that is not allowed, or no sample can be used.
    """
    if image_size < 1 or channels not in {1, 3, None}:
        raise ValueError(f"image_size must be at least 1 and channels 1, 3 or None, got {image_size} and {channels}.")
    extensions = tuple(extension.lower().removeprefix(".") for extension in image_extensions)
    label_extension = label_extension.lower().removeprefix(".")
    if not extensions or label_extension in extensions or any("." in one for one in (*extensions, label_extension)):
        raise ValueError(
            f"image extensions {', '.join(extensions) or 'none'} and label extension {label_extension!r} must be "
            "different, and hold no dot."
        )
    names = [one_form(class_name) for class_name in class_names]
    if len(set(names)) != len(names) or not names:
        raise ValueError(f"class_names must name every class once, got {', '.join(map(repr, names))!r:.200}.")
    images: list[_TarImage] = []
    problems: list[Problem] = []
    for tar in tars:
        walked = _walk(Path(tar), extensions=extensions, label_extension=label_extension)
        usable, bad = _samples(walked, Path(tar), names=names, extensions=extensions, label_extension=label_extension)
        images += usable
        problems += bad
    if not images:
        raise ValueError(f"the {len(tars)} tars of {name} hold no usable sample{first_of(problems)}.")
    if channels is None:
        channels = 1 if is_grey(_headers(images)) else 3
    return ImageSet(
        name=name,
        labels=np.array([member.label for member in images], dtype=np.int64),
        groups=[f"class={names[member.label]}" for member in images],
        source_ids=[f"{member.tar.name}/{member.key}" for member in images],
        class_names=names,
        image_shape=(image_size, image_size, channels),
        load=_TarImages(images, "L" if channels == 1 else "RGB", image_size),
        problems=tuple(problems),
    )


@dataclass(frozen=True, slots=True)
class _TarImage:
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


def _headers(members: list[_TarImage]) -> Iterator[tuple[Header, Callable[[], object]]]:
    for member in members:
        try:
            data = member.read()
            yield read_header(data, name=member.name), partial(decode_bytes, data, mode="RGB", name=member.name)
        except ValueError:  # told when its pixels are asked for
            continue


@dataclass(frozen=True)
class _TarImages:
    members: list[_TarImage]
    mode: str
    image_size: int

    def __call__(self, index: int) -> NDArray[np.uint8]:
        member = self.members[index]
        image = decode_bytes(member.read(), mode=self.mode, name=member.name)
        return to_pixels(fit_square(image, self.image_size))


@dataclass
class _Walked:
    """What a tar holds: images, labels and other extensions by key, and members that are in no sample."""

    images: dict[str, Member] = field(default_factory=dict)
    labels: dict[str, bytes] = field(default_factory=dict)
    others: dict[str, list[str]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def _walk(tar: Path, *, extensions: tuple[str, ...], label_extension: str) -> _Walked:
    if not tar.is_file():
        raise FileNotFoundError(f"{tar} does not exist; name tar files.")
    walked = _Walked()

    def refuse(name: str, kind: str, reason: str, *, on_disk: bool) -> None:
        walked.problems.append(Problem(f"{tar.name}/{name}", reason, kind=kind, on_disk=on_disk))

    def refuse_other(name: str) -> None:
        refuse(name, "tar member that is no file", "is a link or a device, no file.", on_disk=False)

    with tar.open("rb") as file:
        try:
            for member in walk_members(file, name=str(tar), on_other=refuse_other):
                name = one_form(member.name)
                folder, _, base = name.rpartition("/")
                if base.startswith("._"):
                    continue
                stem, _, extension = base.partition(".")
                key, extension = f"{folder}/{stem}" if folder else stem, extension.lower()
                is_image = extension in extensions
                if is_image and key in walked.images:
                    refuse(name, "second image of a key", "is a second image of its key.", on_disk=True)
                elif is_image:
                    walked.images[key] = member
                elif extension == label_extension and key in walked.labels:
                    refuse(name, "second class of a key", "is a second class of its key.", on_disk=False)
                elif extension == label_extension:
                    file.seek(member.offset)
                    walked.labels[key] = file.read(min(member.size, 1024))
                elif (last := extension.rpartition(".")[2]) in (*extensions, label_extension):
                    kind = "key with a dot in it"
                    reason = f"has the extension {extension!r:.80}, since a key ends at the first dot; rename it."
                    refuse(name, kind, reason, on_disk=last in extensions)
                else:
                    walked.others.setdefault(key, []).append(extension)
        except ValueError as error:
            # What follows cannot be counted.
            kind = "damaged tar, whose rest cannot be read"
            walked.problems.append(Problem(tar.name, str(error), kind=kind, on_disk=False))
    return walked


def _samples(
    walked: _Walked, tar: Path, *, names: list[str], extensions: tuple[str, ...], label_extension: str
) -> tuple[list[_TarImage], list[Problem]]:
    """The usable samples of a tar, and what is wrong with the others."""
    members, problems = [], list(walked.problems)
    number_of = {name: number for number, name in enumerate(names)}
    for key in dict.fromkeys((*walked.images, *walked.labels, *walked.others)):
        image, written = walked.images.get(key), walked.labels.get(key)
        endings = [f".{extension}" for extension in walked.others.get(key, [])]
        others = ", ".join(endings)[:80]
        kind, reason, label = "", "", None
        if image is None and written is None:
            kind = "tar member that is neither image nor class"
            reason = f"holds {others}; images are {', '.join(extensions)}, classes {label_extension}."
        elif image is None:
            there = f" among {others}" if others else ""
            kind, reason = "sample without image", f"has a class but no image{there}."
        elif written is None:
            kind, reason = "sample without class", "has an image but no class."
        elif image.size == 0:
            kind, reason = "empty image", "has an image of zero bytes."
        else:
            label, reason = _label(written, number_of, numbered=label_extension == _NUMBERED)
            kind = "sample whose class is unknown"
        on_disk = image is not None or not IMAGE_SUFFIXES.isdisjoint(endings)
        if image is not None and label is not None:
            members.append(_TarImage(tar, key, label, image.offset, image.size))
        else:
            problems.append(Problem(f"{tar.name}/{key}", reason, kind=kind, on_disk=on_disk))
    return members, problems


def _label(written: bytes, number_of: dict[str, int], *, numbered: bool) -> tuple[int | None, str]:
    """The label, or why there is none."""
    if not written.strip():
        return None, "has a class of no bytes."
    if not numbered:
        word = one_form(written.decode("utf-8", errors="replace")).strip()
        if word in number_of:
            return number_of[word], ""
        near = [name for name in number_of if loose_form(name) == loose_form(word)]
        meant = f"; did you mean {near[0]!r:.60}?" if near else "."
        return None, f"has the class {word!r:.60}, which is not among the classes{meant}"
    digits = written.strip()
    if not digits.isdigit() or len(digits) > 9 or int(digits) >= len(number_of):
        return None, f"has the class {digits[:20]!r}, expected a number below {len(number_of)}."
    return int(digits), ""
