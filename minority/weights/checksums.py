"""Checksums of files, each computed once as long as its file stays as it is."""

import hashlib
import json
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

FileState = tuple[str, int, int, int]

#: A file this young may be written again within one tick of the clock of its file system, and look the same.
_SETTLED = 2 * 10**9  # nanoseconds


def file_state(path: Path) -> FileState:
    """What tells whether a file is still the same: its path, size in bytes, time of change in ns, and inode."""
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ino


def is_settled(state: FileState) -> bool:
    """Whether a file was last written so long ago that its state tells one content from another."""
    return time.time_ns() - state[2] > _SETTLED


def file_sha256(path: Path) -> str:
    """Checksum of a file, 64 hex digits; read once in a process as long as the file's state stays the same."""
    state = file_state(path)
    return _sha256_of(state) if is_settled(state) else _sha256(path)


@lru_cache(maxsize=256)
def _sha256_of(state: FileState) -> str:
    return _sha256(Path(state[0]))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def joint_sha256(parts: Mapping[str, str]) -> str:
    """One checksum over several.

    Args:
        parts: Checksum or text of each part by its role; the order does not count.

    Returns:
        64 hex digits.
    """
    return hashlib.sha256(json.dumps(dict(parts), sort_keys=True).encode()).hexdigest()
