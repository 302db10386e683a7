"""CIFAR-10: 60,000 colour pictures of ten things, 32 x 32 (Krizhevsky, technical report, 2009).

Two forms are read: the original "python version", <folder>/[cifar-10-batches-py/]data_batch_1..5, test_batch; and
<folder>/strips.zip with labels.parquet, where each lossless strip stacks 500 images downwards in the original order.
"""

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.readers.images.decoding import decode_bytes, to_pixels
from datasets.readers.images.image_files import ZipFiles
from datasets.readers.imageset import ImageSet
from datasets.readers.tables.table_cells import read_cells

LICENCE = "CIFAR-10, A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009; no licence stated."
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
_STRIP = 500


class _Pixels:
    """Stands for an array of bytes in a pickle: its buffer is taken over, numpy's own unpickling never runs.

    A damaged pickle can put a numpy array into a state that breaks the interpreter's later work.
    """

    pixels: NDArray[np.uint8]

    def __setstate__(self, state: Any) -> None:
        _, shape, _, fortran, raw = state
        if fortran or not isinstance(raw, bytes):
            raise ValueError("its array is not a plain buffer of bytes")
        self.pixels = np.frombuffer(raw, dtype=np.uint8).reshape(shape)


class _ByteType:
    """Stands for the array's element type, which must be uint8."""

    def __init__(self, name: Any, *_: Any) -> None:
        if name not in ("u1", b"u1"):
            raise ValueError(f"its array holds {name!r}, not bytes")

    def __setstate__(self, state: Any) -> None:
        pass


# All that a batch is made of; anything else in a pickle could run code.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): lambda text, _: text.encode("latin1"),  # how Python 3 stores bytes for Python 2
    ("numpy", "ndarray"): _Pixels,
    ("numpy", "dtype"): _ByteType,
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Pixels(),
    ("numpy._core.multiarray", "_reconstruct"): lambda *_: _Pixels(),
}


def read_cifar10(folder: str | Path) -> ImageSet:
    """Read both official parts, training images first, in the original order. Pixels are read when asked for.

    Args:
        folder: Where one of the two forms lies.

    Returns:
        RGB images (32, 32, 3) with their official parts; source ids "cifar10/train/00000".

    Raises:
        FileNotFoundError: Neither form is there, or a part of it is missing.
        ValueError: A file is damaged, or a pickle holds more than arrays and words.
    """
    root = Path(folder)
    load: Callable[[int], NDArray[np.uint8]]
    if (root / "strips.zip").is_file():
        labels, load = _strips(root)
    else:
        labels, load = _batches(root)
    together = np.concatenate([labels["train"], labels["test"]])
    if together.min() < 0 or together.max() >= len(CLASS_NAMES):
        raise ValueError(f"{root} has labels {together.min()}..{together.max()}, CIFAR-10's are 0..9; fetch it again.")
    return ImageSet(
        name="cifar10",
        labels=together,
        groups=[f"class={CLASS_NAMES[label]}" for label in together],
        source_ids=[f"cifar10/{part}/{number:05d}" for part, values in labels.items() for number in range(len(values))],
        class_names=list(CLASS_NAMES),
        image_shape=(32, 32, 3),
        load=load,
        parts=[part for part, values in labels.items() for _ in values],
    )


@dataclass(frozen=True)
class _Strips:
    archive: ZipFiles
    num_train: int

    def __call__(self, index: int) -> NDArray[np.uint8]:
        part, number = ("train", index) if index < self.num_train else ("test", index - self.num_train)
        strip = _strip(self.archive, f"{part}_{number // _STRIP:03d}.webp")  # (500 * 32, 32, 3)
        top = 32 * (number % _STRIP)
        if strip.shape[0] < top + 32:
            raise ValueError(f"{part}_{number // _STRIP:03d}.webp ends before image {number}; fetch the archive again.")
        return strip[top : top + 32].copy()


@dataclass(frozen=True)
class _BatchImages:
    paths: tuple[Path, ...]
    begins: tuple[int, ...]

    def __call__(self, index: int) -> NDArray[np.uint8]:
        which = int(np.searchsorted(self.begins, index, side="right")) - 1
        pixels, _ = _batch(self.paths[which])
        return pixels[index - self.begins[which]].copy()


def _strips(root: Path) -> tuple[dict[str, NDArray[np.int64]], _Strips]:
    path = root / "labels.parquet"
    rows, _ = read_cells(path, columns=["split", "index", "label"])
    labels: dict[str, NDArray[np.int64]] = {}
    for part in ("train", "test"):
        try:
            numbered = {int(index): int(label) for _, (split, index, label) in rows if split == part}
        except ValueError as error:
            raise ValueError(f"{path} has an index or label that is no number ({error}); fetch it again.") from error
        if not numbered or sorted(numbered) != list(range(len(numbered))):
            raise ValueError(f"{path} does not number the {part} images 0, 1, 2, ...; fetch it again.")
        labels[part] = np.array([numbered[index] for index in range(len(numbered))], dtype=np.int64)
    return labels, _Strips(ZipFiles(root / "strips.zip"), len(labels["train"]))


def _batches(root: Path) -> tuple[dict[str, NDArray[np.int64]], _BatchImages]:
    nested = root / "cifar-10-batches-py"
    root = nested if nested.is_dir() else root
    missing = [name for name in _BATCHES if not (root / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{root} lacks {', '.join(missing)} and strips.zip; unpack CIFAR-10's python version there."
        )
    paths = tuple(root / name for name in _BATCHES)
    parts = [_batch(path)[1] for path in paths]
    begins = np.cumsum([0, *(len(part) for part in parts)])
    return {"train": np.concatenate(parts[:-1]), "test": parts[-1]}, _BatchImages(
        paths, tuple(int(begin) for begin in begins[:-1])
    )


@lru_cache(maxsize=128)  # all of them, 184 MB: samples are asked for in mixed order
def _strip(archive: ZipFiles, name: str) -> NDArray[np.uint8]:
    strip = to_pixels(decode_bytes(archive.read(name), mode="RGB", name=name))
    if strip.shape[1] != 32:
        raise ValueError(f"{name} is {strip.shape[1]} pixels wide, expected 32; fetch the archive again.")
    return strip


@lru_cache(maxsize=6)
def _batch(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels (N, 32, 32, 3) and labels (N,) of one batch file."""
    try:
        content = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        data, labels = content[b"data"].pixels, np.asarray(content[b"labels"])
    except (pickle.UnpicklingError, OSError, EOFError, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is not a batch of CIFAR-10's python version ({error!s:.100}).") from error
    except (AttributeError, IndexError, ImportError, MemoryError, OverflowError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error!s:.100}); fetch CIFAR-10 again.") from error
    if data.shape != (len(labels), 3072) or labels.dtype.kind != "i" or labels.ndim != 1:
        raise ValueError(f"{path} holds {data.shape} bytes and {labels.shape} labels; fetch CIFAR-10 again.")
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels.astype(np.int64)


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it wants to load {module}.{name}, which no batch of CIFAR-10 needs")
        return _ALLOWED[module, name]
