"""What was fitted on a large set, on this machine: in files of its cache that all its processes map.

So a worker holds none of it for itself, however large the set is.
"""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.config.paths import cache_folder

Arrays = Mapping[str, NDArray[Any]]
#: Bytes up to which a process holds the arrays itself.
HELD_BYTES = 2**26


def mapped_arrays(name: str, read: Callable[[], Arrays]) -> Arrays:
    """Arrays by name, mapped from this machine's cache where they are large.

    Args:
        name: What they are called in the cache: equal names, equal arrays.
        read: Reads or makes them, where the cache has none.

    Raises:
        OSError: The cache cannot be read or written.
    """
    folder = cache_folder() / "fitted" / name
    if not folder.is_dir():
        arrays = read()
        if sum(array.nbytes for array in arrays.values()) <= HELD_BYTES:
            return arrays
        _save(folder, arrays)
    # Copy on write: what is read is shared by all processes, and torch asks for memory that may be written to.
    return {path.stem: np.load(path, mmap_mode="c", allow_pickle=False) for path in sorted(folder.glob("*.npy"))}


def _save(folder: Path, arrays: Arrays) -> None:
    """Write one file an array; the folder is there whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        for name, array in arrays.items():
            np.save(beside / f"{name}.npy", array, allow_pickle=False)
        with suppress(OSError):  # another process may have been the first
            beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
