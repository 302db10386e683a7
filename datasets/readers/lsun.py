"""LSUN: scenes and objects by category (Yu et al., arXiv 1506.03365), as lmdb databases or folders of files.

<folder>/<category>_<split>_lmdb/data.mdb   keys of 40 hex digits; values are WebP or JPEG files
<folder>/<category>_<split>/...             the same exported, in folders of any depth
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.readers.images.decoding import decode_bytes, fit_square, to_pixels
from datasets.readers.images.image_files import FolderFiles
from datasets.readers.imageset import ImageSet

LICENCE = "LSUN, F. Yu et al., arXiv 1506.03365, 2015; for research, no licence stated."
_PARTS = {"train": "train", "val": "validation"}


def read_lsun(
    folder: str | Path,
    *,
    categories: Sequence[str] = ("bedroom",),
    split: str = "train",
    image_size: int = 256,
    max_images: int | None = None,
) -> ImageSet:
    """Read categories of LSUN, one class a category. Pixels are read when asked for.

    Each image is cut to its central square and resized by an antialiased Lanczos filter.

    Args:
        folder: The folder of the databases or exported folders.
        categories: Such as "bedroom"; their order numbers the classes.
        split: "train" or "val".
        image_size: Side of the square images in pixels.
        max_images: Of each category take the first so many in the order of their keys; None takes all.

    Returns:
        RGB images (image_size, image_size, 3); source ids "lsun/bedroom/<key>".

    Raises:
        FileNotFoundError: A category is missing.
        ImportError: A database is there, but the package lmdb is not installed.
        ValueError: A setting that is not allowed, a damaged database, or a category without images.
    """
    if split not in _PARTS:
        raise ValueError(f"split must be train or val, got {split!r}.")
    if not categories or len(set(categories)) != len(categories):
        raise ValueError(f"categories must name at least one category, each once, got {list(categories)}.")
    if image_size < 1 or (max_images is not None and max_images < 1):
        raise ValueError(f"image_size and max_images must be at least 1, got {image_size} and {max_images}.")
    sources = [_source(Path(folder), category, split) for category in categories]
    listed = [category_files.keys(max_images) for category_files in sources]
    keys = [of_category for of_category, _ in listed]
    for category_files, of_category in zip(sources, keys, strict=True):
        if not of_category:
            raise ValueError(f"{category_files.path} holds no images; fetch it again.")
    labels = np.repeat(np.arange(len(sources), dtype=np.int64), [len(of_category) for of_category in keys])
    return ImageSet(
        name="lsun",
        labels=labels,
        groups=[f"class={categories[label]}" for label in labels.tolist()],
        source_ids=[f"lsun/{categories[label]}/{key}" for label, of_category in enumerate(keys) for key in of_category],
        class_names=list(categories),
        image_shape=(image_size, image_size, 3),
        load=_Scenes(sources, keys, image_size),
        parts=[_PARTS[split]] * len(labels),
        num_beyond_cap=sum(count for _, count in listed) - len(labels),
    )


@dataclass(frozen=True)
class _Scenes:
    sources: list["_Database | _Folder"]
    keys: list[list[str]]
    image_size: int

    def __call__(self, index: int) -> NDArray[np.uint8]:
        for source, keys in zip(self.sources, self.keys, strict=True):
            if index < len(keys):
                data = source.read(keys[index])
                image = decode_bytes(data, mode="RGB", name=f"{source.path}: {keys[index]}")
                return to_pixels(fit_square(image, self.image_size))
            index -= len(keys)
        raise IndexError(index)


@dataclass(frozen=True)
class _Folder:
    path: Path

    def keys(self, most: int | None) -> tuple[list[str], int]:
        """The first so many names, and how many there are."""
        names = sorted(FolderFiles(self.path).names())
        return names[:most], len(names)

    def read(self, key: str) -> bytes:
        return FolderFiles(self.path).read(key)


@dataclass(frozen=True)
class _Database:
    path: Path

    def keys(self, most: int | None) -> tuple[list[str], int]:
        """The first so many keys, and how many there are."""
        kept: list[str] = []
        with _reading(self.path) as transaction:
            for key in transaction.cursor().iternext(keys=True, values=False):
                if most is not None and len(kept) == most:
                    break
                kept.append(key.decode("ascii", errors="backslashreplace"))
            return kept, int(transaction.stat()["entries"])

    def read(self, key: str) -> bytes:
        with _reading(self.path) as transaction:
            value = transaction.get(key.encode("ascii"))
        if value is None:
            raise ValueError(f"{self.path} has no image {key!r}; it was changed since it was listed.")
        return bytes(value)


def _source(root: Path, category: str, split: str) -> _Database | _Folder:
    database, folder = root / f"{category}_{split}_lmdb", root / f"{category}_{split}"
    if (database / "data.mdb").is_file():
        return _Database(database)
    if folder.is_dir():
        return _Folder(folder)
    raise FileNotFoundError(f"{root} has neither {database.name}/data.mdb nor {folder.name}/; unpack LSUN there.")


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    import lmdb

    try:
        with _environment(path).begin() as transaction:
            yield transaction
    except lmdb.Error as error:
        raise ValueError(f"{path} cannot be read as an lmdb database ({error}); fetch it again.") from error


@lru_cache(maxsize=32)
def _environment(path: Path) -> Any:
    """An open database. Without locks, reading goes on in forked processes, where lmdb refuses to open it again."""
    try:
        import lmdb
    except ImportError as error:
        raise ImportError(f"{path} is an lmdb database: install the package lmdb, or export it to files.") from error
    return lmdb.open(str(path), readonly=True, lock=False, readahead=False, max_readers=1)
