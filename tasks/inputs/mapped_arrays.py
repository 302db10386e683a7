"""What was fitted on a large set, on this machine: in files of its cache that all its processes map.

So a worker keeps none of it for itself, however large the set is. What the store has, checksum and all, is read first.
"""

import logging
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minority.selection.stored_networks import read_arrays
from tasks.config.paths import cache_folder

Arrays = Mapping[str, NDArray[Any]]
#: Bytes up to which a process holds the arrays itself.
HELD_BYTES = 2**26


def mapped_arrays(name: str, data: bytes) -> Arrays:
    """Arrays by name, mapped from this machine's cache where they are large.

    Args:
        name: What they are called in the cache. It tells their content, e.g. by a digest: equal names, equal arrays.
        data: What `array_bytes` made of them, as the store has it.

    Raises:
        ValueError: The bytes are no arrays.
        OSError: The cache cannot be read or written.
    """
    if len(data) <= HELD_BYTES:
        return read_arrays(data)
    folder = cache_folder() / "fitted" / name
    if not folder.is_dir():
        _save(folder, read_arrays(data))
    try:
        return _mapped(folder)
    except ValueError:  # a file was cut short
        logging.getLogger(__name__).warning("%s is damaged and written again.", folder)
        shutil.rmtree(folder)
        _save(folder, read_arrays(data))
        return _mapped(folder)


def _mapped(folder: Path) -> Arrays:
    # Copy on write: what is read is shared by all processes, and torch asks for memory that may be written to.
    return {path.stem: np.load(path, mmap_mode="c", allow_pickle=False) for path in sorted(folder.glob("*.npy"))}


def _save(folder: Path, arrays: Arrays) -> None:
    """Write one file an array; the folder is there whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        for name, array in arrays.items():
            np.save(beside / f"{name}.npy", array, allow_pickle=False)
        try:
            beside.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was the first
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
