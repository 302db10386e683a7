"""Ctrl-C and TERM: one line and exit code 130, whatever runs, is being imported or is being cleared up.

Imported first of all by the command line, since its other imports take the time in which somebody may change his mind.
"""

import atexit
import os
import signal
import sys
from types import FrameType, TracebackType
from typing import Any

#: Of an interrupted command.
EXIT_CODE = 130

_usual = sys.excepthook
_told = False


def end_on_signals() -> None:
    """Let a Ctrl-C and a TERM interrupt what runs, and another one end the process without waiting for its threads.

    While a module is imported the first one ends the process, since what is raised there may get lost: compiled modules
    try others and clear what comes of it. A process that was started to ignore Ctrl-C, as a script's `command &` is,
    goes on ignoring it.
    """

    def interrupt(_number: int, frame: FrameType | None) -> None:
        if _imports(frame):
            _end_at_once()
        for each in signals:
            signal.signal(each, _end_at_once)
        raise KeyboardInterrupt

    def ignore() -> None:
        # Python would let them kill the process while it takes itself apart, and the exit code be another.
        for each in signals:
            signal.signal(each, signal.SIG_IGN)

    atexit.register(ignore)
    signals = [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) is not signal.SIG_IGN]
    for each in signals:
        signal.signal(each, interrupt)


def _imports(frame: FrameType | None) -> bool:
    """Whether what runs there belongs to an import."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def tell_interrupted() -> None:
    """Say in one line that the command was interrupted."""
    global _told
    _told = True
    sys.stderr.write("interrupted; run the same command again to go on.\n")


def _end_at_once(*_: Any) -> None:
    """What the process started ends with it: servers see the end of their pipe."""
    if not _told:
        tell_interrupted()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EXIT_CODE)


def _tell(kind: type[BaseException], error: BaseException, place: TracebackType | None) -> None:
    """What Python calls for an exception that nobody caught."""
    if not issubclass(kind, KeyboardInterrupt):
        _usual(kind, error, place)
        return
    _end_at_once()


sys.excepthook = _tell
