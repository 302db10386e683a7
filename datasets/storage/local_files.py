"""Whole-or-invisible writing of files on a local disk: temporary copy, fsync, atomic rename or link.

A temporary copy lies in the folder of its target and is named `.tmp-<host>-<pid>-<random>`, so that a listing can leave
it out and a later process can tell whether its writer still lives.
"""

import errno
import os
import platform
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from datasets.storage.locks import LOCK_PREFIX

_TEMPORARY = re.compile(r"\.tmp-(?P<host>[A-Za-z0-9._]+)-(?P<pid>\d+)-[0-9a-f]+")
_FOREIGN_LEFTOVER_SECONDS = 24 * 3600.0


def is_bookkeeping(name: str) -> bool:
    """Whether a file name is that of a temporary copy or a lock, which are no part of a store's contents."""
    return name.startswith(LOCK_PREFIX) or _TEMPORARY.fullmatch(name) is not None


def replace_file(path: Path, data: bytes) -> None:
    """Write a file so that readers see the old content or the new, never a part. Makes the folders it needs.

    Raises:
        OSError: The file cannot be written; no part of it is left.
    """
    with _temporary_copy(path.parent, data) as temporary:
        temporary.replace(path)
    _sync_folder(path.parent)


def create_file(path: Path, data: bytes) -> bool:
    """Write a whole file unless one of that name exists. Of several writers at once exactly one gets True.

    Raises:
        OSError: The file cannot be written, since something else than a file has its name, say; no part of it is left.
    """
    if path.exists():
        require_plain(path)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        return False
    with _temporary_copy(path.parent, data) as temporary:
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
    _sync_folder(path.parent)
    return True


def require_plain(path: Path) -> None:
    """Refuse to open a pipe, a socket or a device: it would block, or never end.

    Raises:
        OSError: It is one (ENXIO), or cannot be looked at.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a folder says so by itself
        kind = "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        raise OSError(errno.ENXIO, f"it is {kind}, no plain file")


def list_files(folder: Path) -> list[Path]:
    """All files below a folder but temporary copies and locks, unsorted; a missing folder has none."""
    return [path for path in _walk(folder) if not is_bookkeeping(path.name)]


def remove_leftovers(folder: Path) -> list[Path]:
    """Remove temporary copies whose writer is dead. Returns them.

    A writer on this host is dead when no process has its id; one on another host is taken for dead after a day.
    """
    removed = find_leftovers(folder)
    for path in removed:
        path.unlink(missing_ok=True)
    return removed


def find_leftovers(folder: Path) -> list[Path]:
    """Temporary copies whose writer is dead, as `remove_leftovers` has it."""
    leftovers = []
    for path in _walk(folder):
        match = _TEMPORARY.fullmatch(path.name)
        if match is not None and _writer_is_dead(path, host=match["host"], pid=int(match["pid"])):
            leftovers.append(path)
    return leftovers


def remove_emptied(folder: Path) -> None:
    """Remove a folder and those below it as far as they hold nothing but locks; a file that is there stays."""
    for root, _, names in os.walk(folder, topdown=False):
        if all(name.startswith(LOCK_PREFIX) for name in names):
            for name in names:
                Path(root, name).unlink(missing_ok=True)
            with suppress(OSError):  # a folder below it, or a file that has just come, keeps it
                Path(root).rmdir()


def _walk(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # another process may remove a folder while we walk
            raise error

    for root, _, names in os.walk(folder, onerror=refuse):
        yield from (Path(root, name) for name in names)


def _writer_is_dead(path: Path, *, host: str, pid: int) -> bool:
    try:
        if time.time() - path.stat().st_mtime > _FOREIGN_LEFTOVER_SECONDS:
            return True
        if host != _host():
            return False
        os.kill(pid, 0)
    except (FileNotFoundError, PermissionError):  # just renamed by its living writer; a process of another user
        return False
    except (ProcessLookupError, OverflowError):
        return True
    return False


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9._]", "_", platform.node()) or "unknown"


@contextmanager
def _temporary_copy(folder: Path, data: bytes) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".tmp-{_host()}-{os.getpid()}-{secrets.token_hex(8)}"
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.EBADF}:  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)
