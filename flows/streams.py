"""The streams that a command writes to: output that cannot be printed is no failure of the work."""

import io
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO


def ready_streams() -> None:
    """Output that cannot be printed is no failure of the command: it is told once, and the work goes on.

    A character that the terminal's encoding lacks is replaced.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
            continue
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
        setattr(sys, name, _Bearing(stream, tell=name == "stdout"))


class _Bearing(io.TextIOBase):
    """A text stream that goes on when nothing more can be written to it."""

    def __init__(self, stream: TextIO, *, tell: bool) -> None:
        self._stream = stream
        self._tell = tell
        self._lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The stream's own."""
        return self._stream.encoding

    def isatty(self) -> bool:
        """Whether a terminal shows it."""
        return not self._lost and self._stream.isatty()

    def fileno(self) -> int:
        """The stream's own."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """It takes text, whether or not it can be kept."""
        return True

    def write(self, text: str) -> int:
        """Write, or lose it."""
        if not self._lost:
            try:
                self._stream.write(text)
            except (OSError, ValueError) as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Flush, or lose what is left."""
        if not self._lost:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._lose(error)

    def _lose(self, error: BaseException) -> None:
        self._lost = True
        with suppress(OSError, ValueError):  # what is left in the buffer is written to nowhere when the process ends
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        if self._tell:
            reason = getattr(error, "strerror", None) or str(error)
            sys.stderr.write(f"output is lost from here on ({reason}); the work itself goes on.\n")
            sys.stderr.flush()
