"""Which files of a folder are images of which class and part; all others are passed over and told."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.readers.images.decoding import is_image
from datasets.readers.imageset import Problem
from datasets.readers.names.class_names import in_class_order
from datasets.readers.names.part_names import PART_FOLDERS
from datasets.readers.names.text_forms import name_on_disk, one_form, tellable_name

# What is passed over, as it is counted.
NO_IMAGE = "file that is no image"
HIDDEN = "hidden file"
BY_THE_SYSTEM = "file in a folder that the system made"
OVERVIEW = "overview of drawn images"
NO_CLASS_FOLDER = "image of a part without class folders"
NOT_AMONG_CLASSES = "image of a folder that is not among classes"
EMPTY_IN_PART = "class folder without images in one part"

_SUFFIXES = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".tif", ".tiff", ".gif", ".bmp", ".dib"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".tga", ".pcx", ".sgi", ".qoi"}
)
_SYSTEM_FOLDERS = {"__macosx", "@eadir", "#recycle", "$recycle.bin", "lost+found", "system volume information"}
_OVERVIEW_NAME = "grid.png"  # what `minority sample` puts beside the images that it draws


@dataclass(frozen=True)
class Layout:
    """What lies where.

    Attributes:
        class_names: In the order of their labels; empty for a flat folder.
        files: (path, label, part), sorted by class and path, part after part; label 0 and part "" where there is none.
        has_parts: Whether folders such as train/ and test/ divide the set.
        problems: Every other file, and why it is passed over.
    """

    class_names: list[str]
    files: list[tuple[Path, int, str]]
    has_parts: bool
    problems: tuple[Problem, ...]


def lay_out(root: Path, *, classes: Sequence[str] = ()) -> Layout:
    """Find the images below a folder.

    Names of classes are in Unicode's composed form, whatever form the folders are written in.

    Args:
        root: The folder: flat, with one sub-folder a class, or with train/, test/ and perhaps val/ that hold these.
        classes: The classes in the order of their labels; empty: all folders, in the order of `in_class_order`.

    Raises:
        ValueError: There are no images, an empty class, images beside or folders inside class folders, folders beside
            parts, two folders of one number, two names that differ in their Unicode form alone,
            or a class folder whose name is not UTF-8.
    """
    classes = [one_form(name) for name in classes]
    finder = _Finder(root, classes)
    folders, images = finder.entries(root)
    if not folders:
        if not images:
            raise ValueError(f"{root} holds no images; put images or class-named folders of images there.")
        return Layout([], [(path, 0, "") for path in images], False, tuple(finder.problems))
    _refuse_loose(images, folders)
    parts = _parts(folders, classes=classes)
    if parts:
        classes_by_part = [(parts[part.name], finder.classes_in_part(part)) for part in folders if part.name in parts]
    else:
        classes_by_part = [("", finder.classes(folders))]
        for name, members in classes_by_part[0][1].items():
            if not members:
                raise ValueError(f"{root / name} is an empty class; add images of {name} or remove the folder.")
    names = classes or in_class_order({name for _, by_class in classes_by_part for name in by_class})
    number = {name: label for label, name in enumerate(names)}
    files = [
        (path, number[name], part)
        for part, by_class in classes_by_part
        for name in sorted(by_class, key=number.__getitem__)
        for path in by_class[name]
    ]
    if not files:
        raise ValueError(f"{root} has no image in a class folder; put images into class-named folders there.")
    # One part alone divides nothing.
    has_parts = {part for part, by_class in classes_by_part if by_class} not in ({""}, {"train"})
    return Layout(names, files, has_parts, tuple(finder.problems))


def part_of(name: str) -> str | None:
    """The makers' part that a folder's name stands for: "train", "validation" or "test"; None for another name."""
    return PART_FOLDERS.get(name.lower())


def _parts(folders: list[Path], *, classes: Collection[str]) -> dict[str, str]:
    """Folder name -> the makers' part; empty where the folders are classes.

    Folders are parts where one of them has the name of a part and holds folders of images. Without test/, val/ is the
    test part, as it is of ImageNet.
    """
    named = {
        folder.name: PART_FOLDERS[folder.name.lower()] for folder in folders if folder.name.lower() in PART_FOLDERS
    }
    if not named or {tellable_name(folder.name) for folder in folders} <= set(classes):
        return {}
    deep = [folder for folder in folders if folder.name in named and _holds_folders_of_images(folder)]
    if not deep:
        if len(named) == len(folders):
            raise ValueError(
                f"{folders[0].parent} has the parts {_listed(folders)}, but no class folders in them; sort the images "
                "into class-named folders, or list these names as classes where they are classes."
            )
        return {}
    for folder in folders:
        if folder.name not in named and _holds_images(folder):
            raise ValueError(
                f"{folder} lies beside {deep[0].name}/, which is a part and no class; move it into a part or away."
            )
    if "test" not in named.values() and "validation" in named.values() and "train" in named.values():
        named = {name: "test" if part == "validation" else part for name, part in named.items()}
    return named


class _Finder:
    def __init__(self, root: Path, classes: Sequence[str]) -> None:
        self._root = root
        self._classes = classes
        self.problems: list[Problem] = []

    def entries(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """The folders and the images in a folder, sorted; all else becomes a problem."""
        folders, images = [], []
        for entry in sorted(folder.iterdir()):
            is_folder = entry.is_dir()
            if entry.name.startswith("."):
                self._pass_over(entry, "is hidden.", HIDDEN)
            elif is_folder and entry.name.lower() in _SYSTEM_FOLDERS:
                self._pass_over(entry, "is of a folder that the system made.", BY_THE_SYSTEM)
            elif is_folder:
                folders.append(entry)
            elif folder == self._root and entry.name == _OVERVIEW_NAME:
                self._pass_over(entry, "is the overview that minority sample draws.", OVERVIEW)
            elif _has_image_name(entry) or is_image(entry, folder=self._root):
                images.append(entry)
            else:
                self._pass_over(entry, "is no image.", NO_IMAGE)
        _refuse_twins([*folders, *images])
        return folders, images

    def classes(self, folders: list[Path]) -> dict[str, list[Path]]:
        """Class name -> its images, none where a class folder is empty."""
        folders_of = {}
        for folder in folders:
            name = tellable_name(folder.name)
            if self._classes and name not in self._classes:
                self._pass_over(folder, f"lies in {folder.name}/, which is not among classes.", NOT_AMONG_CLASSES)
                continue
            name = name_on_disk(folder.name)
            inner, folders_of[name] = self.entries(folder)
            for deeper in inner:
                if _holds_images(deeper):
                    is_wrapper = len(folders) == 1 and not folders_of[name]
                    instead = f", or name {folder} where {folder.name} is no class" if is_wrapper else ""
                    raise ValueError(
                        f"{deeper} is a folder inside a class folder; move its images one level up{instead}."
                    )
                self._pass_over(deeper, "lies in a folder without images.", NO_IMAGE)
        return folders_of

    def classes_in_part(self, part: Path) -> dict[str, list[Path]]:
        """The same for a part, in which a class may be empty, and which may have no class folders at all."""
        folders, loose = self.entries(part)
        _refuse_loose(loose, folders)
        for path in loose:
            self._pass_over(path, f"has no label: {part.name}/ has no class folders.", NO_CLASS_FOLDER)
        folders_of = self.classes(folders)
        for name in [name for name, images in folders_of.items() if not images]:
            self._tell(part / name, "is a class folder without images.", EMPTY_IN_PART, on_disk=False)
            del folders_of[name]
        return folders_of

    def _pass_over(self, path: Path, reason: str, kind: str) -> None:
        files = [path] if not path.is_dir() else _files_below(path)
        for file in files:
            self._tell(file, reason, kind, on_disk=_has_image_name(file))
        if not files:
            self._tell(path, reason, kind, on_disk=False)

    def _tell(self, path: Path, reason: str, kind: str, *, on_disk: bool) -> None:
        self.problems.append(
            Problem(tellable_name(path.relative_to(self._root).as_posix()), reason, kind=kind, on_disk=on_disk)
        )


def _refuse_loose(images: list[Path], folders: list[Path]) -> None:
    if images and folders:
        raise ValueError(f"{images[0]} lies beside class folders such as {folders[0].name}/; move it into one of them.")


def _refuse_twins(entries: list[Path]) -> None:
    """Refuse two names in one folder that look alike: their images would be of two classes, or have one source id."""
    by_form: dict[str, Path] = {}
    for entry in entries:
        other = by_form.setdefault(tellable_name(entry.name), entry)
        if other is not entry:
            raise ValueError(
                f"{entry.parent} holds {other.name!a} and {entry.name!a}, which are one name in two Unicode "
                "forms; merge or rename them."
            )


def _holds_folders_of_images(folder: Path) -> bool:
    return any(_holds_images(entry) for entry in _subfolders(folder))


def _holds_images(folder: Path) -> bool:
    if any(_has_image_name(entry) and not entry.name.startswith(".") for entry in folder.iterdir()):
        return True
    return any(_holds_images(entry) for entry in _subfolders(folder))


def _subfolders(folder: Path) -> list[Path]:
    return [
        entry
        for entry in sorted(folder.iterdir())
        if not entry.name.startswith(".") and entry.name.lower() not in _SYSTEM_FOLDERS and entry.is_dir()
    ]


def _files_below(folder: Path) -> list[Path]:
    return sorted(Path(parent) / name for parent, _, names in os.walk(folder) for name in names)


def _has_image_name(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES


def _listed(folders: list[Path]) -> str:
    return ", ".join(f"{folder.name}/" for folder in folders)
