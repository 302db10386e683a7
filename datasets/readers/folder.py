"""Images in a folder: one sub-folder a class, or all in one flat folder (a single class)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.readers.imageset import ImageSet, decode_file, to_pixels

_GREY_MODES = {"1", "L", "LA"}
_COLOUR_MODES = {"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
_FLAT_CLASS = "all"
_OVERVIEW = "grid.png"  # what `minority sample` puts beside the images that it draws


def read_folder(folder: str | Path) -> ImageSet:
    """Read images of one size from class-named sub-folders, or from a flat folder as class 0, "all".

    Classes are numbered in the order of their names, images sorted by path. Hidden files and an overview, grid.png, are
    left out. The set is grey (C = 1) where every file is grey, else RGB. Headers are read now, pixels when asked for.

    Args:
        folder: The folder.

    Returns:
        The set; source ids are paths relative to the folder, groups are "class=<name>".

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: No images, an empty class, files beside class folders, a file that is no image or of another size;
            the message names the file.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder; name a folder of images.")
    class_names, files = _files_by_class(root)
    sizes_and_modes = [_header(path) for path, _ in files]
    width, height = _one_size([path for path, _ in files], sizes=[size for size, _ in sizes_and_modes])
    grey = all(mode in _GREY_MODES for _, mode in sizes_and_modes)
    labels = np.array([label for _, label in files], dtype=np.int64)
    return ImageSet(
        name=root.resolve().name,
        labels=labels,
        groups=[f"class={class_names[label]}" for label in labels],
        source_ids=[path.relative_to(root).as_posix() for path, _ in files],
        class_names=class_names,
        image_shape=(height, width, 1 if grey else 3),
        load=_Files(root, [path for path, _ in files], mode="L" if grey else "RGB"),
    )


@dataclass(frozen=True)
class _Files:
    root: Path
    paths: list[Path]
    mode: str

    def __call__(self, index: int) -> NDArray[np.uint8]:
        return to_pixels(decode_file(self.paths[index], folder=self.root, mode=self.mode))


def _files_by_class(root: Path) -> tuple[list[str], list[tuple[Path, int]]]:
    """Class names, and (file, label) pairs sorted by path."""
    entries = [entry for entry in _visible(root) if entry.name != _OVERVIEW]
    classes = [entry for entry in entries if entry.is_dir()]
    loose = [entry for entry in entries if not entry.is_dir()]
    if not entries:
        raise ValueError(f"{root} holds no images; put images or class-named folders of images there.")
    if not classes:
        return [_FLAT_CLASS], [(path, 0) for path in loose]
    if loose:
        raise ValueError(f"{loose[0]} lies beside class folders such as {classes[0].name}/; move it into one of them.")
    files = []
    for label, subfolder in enumerate(classes):
        members = _visible(subfolder)
        if not members:
            raise ValueError(f"{subfolder} is an empty class; add images of {subfolder.name} or remove the folder.")
        files += [(path, label) for path in members]
    return [subfolder.name for subfolder in classes], files


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _header(path: Path) -> tuple[tuple[int, int], str]:
    """((width, height), mode) without decoding the pixels."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder inside a class folder; move its images one level up.")
    try:
        with Image.open(path) as image:
            size, mode = image.size, image.mode
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a readable image ({error}); replace or remove it.") from error
    if mode not in _GREY_MODES | _COLOUR_MODES:
        raise ValueError(f"{path} has pixels of mode {mode}; convert it to 8-bit grey or RGB.")
    return size, mode


def _one_size(paths: list[Path], *, sizes: list[tuple[int, int]]) -> tuple[int, int]:
    for path, size in zip(paths, sizes, strict=True):
        if size != sizes[0]:
            raise ValueError(
                f"{path} is {size[0]} x {size[1]} pixels, {paths[0].name} is {sizes[0][0]} x {sizes[0][1]}; "
                "resize all images to one size."
            )
    return sizes[0]
