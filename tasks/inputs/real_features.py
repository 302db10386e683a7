"""Features of the real training images: computed once, part by part, and kept beside the dataset by recipe.

A part is the unit of work: any worker makes it, and a killed run goes on with the next one. A set of one part is read
into memory. Of a larger one each machine puts the parts together once, in its cache, and all its processes map that
file, so that the features need not fit into memory either.
"""

import io
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.storage.checked import DamagedError, read_checked, write_checked
from datasets.storage.store import Store
from minority.features import Extractor, Pixels
from minority.runtime.image_arrays import Images, content_digest
from tasks.config.paths import cache_folder

#: Images a part.
PART_SIZE = 16_384
#: Bytes of pixels up to which they may be the features.
MOST_PIXELS = 2**32


def num_parts(images: Images) -> int:
    """Parts that the features of images are made in."""
    return -(-len(images) // PART_SIZE)


def check_features(extract: Extractor, images: Images) -> None:
    """Refuse features that could not be held.

    Raises:
        ValueError: The images are too many for their pixels to be the features.
    """
    size = int(np.prod(images.shape, dtype=np.int64)) * 4
    if isinstance(extract, Pixels) and size > MOST_PIXELS:
        raise ValueError(
            f"the pixels of {len(images):,} images would take {size / 2**30:.1f} GiB as features; choose another "
            "features.kind, e.g. backbone."
        )


def real_features(extract: Extractor, images: Images, *, store: Store, mirrored: bool = False) -> NDArray[np.floating]:
    """Features of the real training images, from the store where they lie already.

    Args:
        extract: What makes them.
        images: (N, H, W, C) uint8.
        store: The dataset's own; the parts lie in `features/` with a checksum each. Damaged ones, and those of earlier
            versions, which have none, are made again.
        mirrored: Of the images mirrored left to right.

    Returns:
        (N, D); of more than one part mapped from a file of this machine's cache. Pixels are never stored: they are the
        images themselves.

    Raises:
        OSError: The store or the cache cannot be read or written.
    """
    if isinstance(extract, Pixels):
        return extract(_whole(images, mirrored=mirrored))
    name = features_name(extract, images, mirrored=mirrored)
    if num_parts(images) == 1:
        return make_part(extract, images, 0, store=store, mirrored=mirrored)
    cached = cache_folder() / "features" / f"{name}.npy"
    if not cached.exists():
        _assemble(cached, (make_part(extract, images, i, store=store, mirrored=mirrored) for i in _parts(images)))
    # Copy on write: what is read is shared by all processes, and torch asks for memory that may be written to.
    mapped: NDArray[np.floating] = np.load(cached, mmap_mode="c", allow_pickle=False)
    return mapped


def make_part(
    extract: Extractor, images: Images, part: int, *, store: Store, mirrored: bool = False
) -> NDArray[np.floating]:
    """One part of the features, from the store where it lies already.

    Args:
        extract: What makes them.
        images: (N, H, W, C) uint8, all of them.
        part: In [0, num_parts(images)).
        store: The dataset's own.
        mirrored: Of the images mirrored left to right.

    Returns:
        (at most PART_SIZE, D).

    Raises:
        OSError: The store cannot be read or written.
    """
    name = features_name(extract, images, mirrored=mirrored)
    path = f"features/{name}.npy" if num_parts(images) == 1 else f"features/{name}/{part:05d}.npy"
    try:
        stored: NDArray[np.floating] = np.load(io.BytesIO(read_checked(store, path)), allow_pickle=False)
        return stored
    except FileNotFoundError:
        pass
    except DamagedError as error:
        logging.getLogger(__name__).warning("%s The features are made again.", error)
    features = extract(_whole(images[part * PART_SIZE : (part + 1) * PART_SIZE], mirrored=mirrored))
    content = io.BytesIO()
    np.save(content, features, allow_pickle=False)
    write_checked(store, path, content.getvalue())
    return features


def _whole(images: Images, *, mirrored: bool) -> NDArray[np.uint8]:
    features = images[:]
    return np.ascontiguousarray(features[:, :, ::-1]) if mirrored else features


def features_name(extract: Extractor, images: Images, *, mirrored: bool = False) -> str:
    """What the features of images are called: equal names, equal features."""
    return f"{extract.recipe}-{content_digest(images)[:16]}{'-mirrored' if mirrored else ''}"


def _parts(images: Images) -> range:
    return range(num_parts(images))


def _assemble(path: Path, parts: Iterator[NDArray[np.floating]]) -> None:
    """Write parts one behind the other as one array, which is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            rows, dimensions, dtype = 0, 0, ""
            file.write(bytes(128))
            for part in parts:
                rows, dimensions, dtype = rows + len(part), part.shape[1], part.dtype.str
                file.write(np.ascontiguousarray(part).tobytes())
            file.seek(0)
            file.write(_header(rows, dimensions, dtype))
        Path(name).replace(path)
    finally:
        with suppress(FileNotFoundError):
            Path(name).unlink()


def _header(rows: int, dimensions: int, dtype: str) -> bytes:
    """The first 128 bytes of an .npy file (version 1.0) of this array."""
    facts = repr({"descr": dtype, "fortran_order": False, "shape": (rows, dimensions)})
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + facts.ljust(117).encode("ascii") + b"\n"
