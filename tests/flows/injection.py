"""Faults from within a run, each at a chosen moment: when the process syncs to disk for the so-manieth time.

Every change of a local store syncs the new file and then its folder, so that the moments are spread over all that a run
writes, whatever the machine's speed. Installed by launcher.py in the process that becomes the run.
"""

import atexit
import errno
import os
import select
import signal
import threading
import time
from pathlib import Path

#: What no reader sees before the manifest: only there a file system without order can leave half a file.
STAGING = ("units", "plans", "shards")

_sync = os.fsync


def install(fault):
    """Replace os.fsync by one that strikes.

    `fault`: {"kind": ..., "at": number of the sync, "mark": a file that is made when it strikes, ...}.
    """
    strike, lock = KINDS[fault["kind"]](fault), threading.Lock()
    count = 0

    def fsync(descriptor):
        nonlocal count
        with lock:
            count += 1
            strike(count, descriptor)
        _sync(descriptor)

    os.fsync = fsync
    if fault["kind"] == "count":
        atexit.register(lambda: Path(fault["file"]).write_text(str(count)))


def sleep_by_select():
    """libfaketime's clock_nanosleep refuses absolute times of the monotonic clock, which time.sleep gives it."""
    time.sleep = lambda seconds: select.select([], [], [], seconds) and None


def mark(fault):
    """Tell the harness that the fault has struck."""
    Path(fault["mark"]).touch()


def kill_myself(fault):
    """As an out-of-memory killer does it: no cleaning up."""
    mark(fault)
    os.kill(os.getpid(), signal.SIGKILL)


def nothing(_fault):
    return lambda _count, _descriptor: None


def killed(fault):
    """Kill -9 some milliseconds after the sync, wherever the process is by then."""

    def strike(count, _descriptor):
        if count == fault["at"]:
            threading.Timer(fault["delay"], kill_myself, [fault]).start()

    return strike


def input_output_error(fault):
    """The disk fails from one sync on for some more, then works again."""

    def strike(count, _descriptor):
        if fault["at"] <= count < fault["at"] + fault["times"]:
            mark(fault)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    return strike


def torn_write(fault):
    """Power is lost: a file has its new name already, but only half of its data. The next folder's sync is too late."""
    written = None

    def strike(count, descriptor):
        nonlocal written
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if count >= fault["at"] and path.is_file() and path.parent.name in STAGING:
            written = path.parent, os.fstat(descriptor).st_ino
        elif written is not None and path == written[0]:
            for file in path.iterdir():
                if file.stat().st_ino == written[1] and not file.name.startswith("."):
                    os.truncate(file, file.stat().st_size // 2)
                    kill_myself(fault)

    return strike


def clock_jump(fault):
    """The clock is set, days ahead or hours back (libfaketime reads it from the file)."""

    def strike(count, _descriptor):
        if count == fault["at"]:
            mark(fault)
            Path(fault["clock"]).write_text(fault["offset"])

    return strike


def group_killed(fault):
    """Kill -9 another process and all of its children: the Prefect server."""

    def strike(count, _descriptor):
        if count == fault["at"]:
            mark(fault)
            os.killpg(fault["group"], signal.SIGKILL)

    return strike


KINDS = {
    "count": nothing,
    "flow process killed": killed,
    "disk error": input_output_error,
    "torn write": torn_write,
    "clock jump": clock_jump,
    "server killed": group_killed,
}
