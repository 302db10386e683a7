"""Locks of a local folder, among threads and processes. Whoever waits for one says for whom, and can be stopped."""

import errno
import fcntl
import json
import logging
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

LOCK_PREFIX = ".lock-"
#: Errors of file systems that know no locks.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
_HELD = {errno.EAGAIN, errno.EACCES}
_SECONDS_BETWEEN_TRIES = 0.05
_SECONDS_BETWEEN_LINES = 30.0
#: A lock is held for as long as one unit is written. Whoever waits for so long waits for a process that hangs.
MOST_SECONDS = 600.0
_FIRST_LINE_SECONDS = 2.0

_log = logging.getLogger(__name__)


@contextmanager
def locked_folder(folder: Path, name: str) -> Iterator[None]:
    """Hold an exclusive lock among threads and processes; the kernel lets go of it when its holder dies.

    Whoever waits says after two seconds who holds it, and again every half minute, and gives up after ten minutes.
    Where the file system knows no locks the block runs without one: correctness rests on atomic renames and checksums,
    the lock only keeps two writers from doing the same work.

    Raises:
        TimeoutError: Somebody holds it for longer than any writing takes; the message names the process.
        InterruptedError: This process ends while it waits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{LOCK_PREFIX}{name}"
    with path.open("a+b") as file:
        if _wait(file, path):
            _sign(file)
        yield


def _wait(file: IO[bytes], path: Path) -> bool:
    """Whether the lock is held now; False where the file system knows none."""
    started = time.monotonic()
    last_line = started - _SECONDS_BETWEEN_LINES + _FIRST_LINE_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return False
            if error.errno not in _HELD:
                raise
        now = time.monotonic()
        if now - started > MOST_SECONDS:
            reason = f"{path} is held by {_holder(file)}, waited for {MOST_SECONDS:.0f} s; end that process"
            raise TimeoutError(errno.ETIMEDOUT, reason)
        if not threading.main_thread().is_alive() or getattr(threading, "_SHUTTING_DOWN", False):
            raise InterruptedError(errno.EINTR, f"the process ends while it waits for {path}")
        if now - last_line > _SECONDS_BETWEEN_LINES:
            last_line = now
            _log.warning("waiting for %s, which %s holds", path, _holder(file))
        time.sleep(_SECONDS_BETWEEN_TRIES)


def _sign(file: IO[bytes]) -> None:
    """Say in the lock's file who holds it; for people, nothing depends on it."""
    holder = {"host": platform.node(), "process": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    try:
        file.truncate(0)
        file.write(json.dumps(holder).encode())
        file.flush()
    except OSError:  # a full disk is told by whoever writes what matters
        _log.debug("the lock's file could not be signed", exc_info=True)


def _holder(file: IO[bytes]) -> str:
    try:
        file.seek(0)
        holder = json.loads(file.read(1000))
        return f"process {holder['process']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, LookupError, TypeError):
        return "another process"
