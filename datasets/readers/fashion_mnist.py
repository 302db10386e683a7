"""Fashion-MNIST: 70,000 grey pictures of clothes, 28 x 28 (Xiao, Rasul and Vollgraf, arXiv 1708.07747).

<folder>/{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz], or the same below FashionMNIST/raw/
"""

import gzip
import math
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.readers.imageset import ImageSet

LICENCE = "Fashion-MNIST, H. Xiao, K. Rasul and R. Vollgraf, 2017, Zalando SE; MIT licence."
CLASS_NAMES = (
    "T-shirt or top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
_FILES = {"train": "train", "test": "t10k"}


def read_fashion_mnist(folder: str | Path, *, image_size: int = 28) -> ImageSet:
    """Read both official parts, training images first. Labels are read now, the pixels of a part when first asked for.

    Args:
        folder: Where the four idx files lie, gzipped or not; or the folder that holds FashionMNIST/raw/.
        image_size: Side in pixels, at least 28; a wider one has a black border, as U-Nets like powers of two.

    Returns:
        70,000 grey images (image_size, image_size, 1), ink bright, with their official parts.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged or is not what its name says, or the size is too small.
    """
    if image_size < 28:
        raise ValueError(f"Fashion-MNIST has 28 pixels a side; image_size must be at least that, got {image_size}.")
    root = _root(Path(folder))
    labels = {part: read_idx(_file(root, f"{name}-labels-idx1-ubyte")) for part, name in _FILES.items()}
    for part, values in labels.items():
        if values.ndim != 1 or len(values) == 0 or values.max() >= len(CLASS_NAMES):
            raise ValueError(f"the {part} labels in {root} are not one class of 0..9 an image; fetch them again.")
    together = np.concatenate([labels["train"], labels["test"]]).astype(np.int64)
    sizes = {part: len(values) for part, values in labels.items()}
    return ImageSet(
        name="fashion_mnist",
        labels=together,
        groups=[f"class={CLASS_NAMES[label]}" for label in together],
        source_ids=[f"fashion_mnist/{part}/{number:05d}" for part, size in sizes.items() for number in range(size)],
        class_names=list(CLASS_NAMES),
        image_shape=(image_size, image_size, 1),
        load=_Pictures(root, sizes, image_size),
        parts=[part for part, size in sizes.items() for _ in range(size)],
    )


class _Pictures:
    """Opens a part's pixels when one of them is asked for; only the names travel to other processes."""

    def __init__(self, root: Path, sizes: dict[str, int], image_size: int) -> None:
        self._root, self._sizes, self._image_size = root, sizes, image_size

    def __call__(self, index: int) -> NDArray[np.uint8]:
        part, number = ("train", index) if index < self._sizes["train"] else ("test", index - self._sizes["train"])
        path = _file(self._root, f"{_FILES[part]}-images-idx3-ubyte")
        pixels = _cached_idx(path)
        if pixels.shape != (self._sizes[part], 28, 28):
            raise ValueError(
                f"{path} holds {pixels.shape}, its labels ask for {(self._sizes[part], 28, 28)}; fetch it again."
            )
        framed = np.zeros((self._image_size, self._image_size, 1), dtype=np.uint8)
        edge = (self._image_size - 28) // 2
        framed[edge : edge + 28, edge : edge + 28, 0] = pixels[number]
        return framed


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an idx file of bytes, gzipped where its name ends in .gz.

    The header is 0, 0, 8 (unsigned bytes), the number of dimensions, and each dimension as a big-endian 32-bit number.

    Returns:
        uint8, of the shape in the header.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or no idx file of bytes.
    """
    try:
        data = path.read_bytes()
        content = gzip.decompress(data) if path.suffix == ".gz" else data
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist; fetch it.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be unpacked ({error}); fetch it again.") from error
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is not an idx file of bytes (it begins with {content[:4].hex()!r}); fetch it again.")
    begin = 4 + 4 * content[3]
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, begin, 4))
    if len(content) != begin + math.prod(shape):
        raise ValueError(
            f"{path} has {len(content) - begin} bytes of data, its header says {math.prod(shape)}; fetch it again."
        )
    return np.frombuffer(content, dtype=np.uint8, offset=begin).reshape(shape)


@lru_cache(maxsize=2)
def _cached_idx(path: Path) -> NDArray[np.uint8]:
    return read_idx(path)


def _root(folder: Path) -> Path:
    nested = folder / "FashionMNIST" / "raw"
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder; name the one that holds Fashion-MNIST's four idx files.")
    return nested if nested.is_dir() else folder


def _file(root: Path, name: str) -> Path:
    for path in (root / f"{name}.gz", root / name):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{root} lacks {name}.gz; fetch Fashion-MNIST's four idx files.")
