"""What all commands of the command line share: Prefect's environment, options, and errors in one line."""

import io
import linecache
import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from datasets.storage.escaping import for_terminal

# Set before anything imports Prefect. A user's own settings win.
_PROJECT = Path(__file__).resolve().parent.parent
_PACKAGES = ("flows", "tasks", "minority", "datasets")
for _name, _value in {
    "PREFECT_HOME": str(_PROJECT / ".prefect"),
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    # What failed is told here, in one line; Prefect's own lines about it go to its server alone.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "DO_NOT_TRACK": "1",
}.items():
    os.environ.setdefault(_name, _value)

BACKBONE = (
    "A diffusers folder, an ADM checkpoint, a hub id (owner/name), package.module:function, or the YAML file of a "
    "backbone section (two stages)."
)
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting, e.g. seed=3. Repeatable.")
]
Flags = Annotated[
    list[str] | None, typer.Option("--flag", metavar="KEY=VALUE", help="ADM flag, e.g. preset=celeba64. Repeatable.")
]


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Turn what went wrong into one line and an exit code; MINORITY_DEBUG=1 shows where it went wrong, too.

    What the caller can mend (an InputError, an OSError, a ValueError that the project itself raises) ends with exit
    code 2, a run that failed with 1, an interruption with 130. A ValueError that comes out of a library is a bug of
    this project: it is shown as one, with its traceback, and ends with 1. What was mended on the way is told, a line
    each.
    """
    _tell_warnings()
    try:
        yield
    except (ValueError, OSError) as error:
        if os.environ.get("MINORITY_DEBUG"):
            typer.echo(for_terminal(traceback.format_exc()), err=True)
        if isinstance(error, ValueError) and not _is_told(error):
            typer.echo(for_terminal(traceback.format_exc()), err=True)
            typer.echo(f"bug: {_visible(error)}; please report it with the lines above.", err=True)
            raise typer.Exit(1) from None
        typer.echo(f"error: {_visible(error)}", err=True)
        raise typer.Exit(2) from None
    except RuntimeError as error:
        server = str(error).removeprefix("Failed to reach API at ")  # Prefect has no type of its own for it
        if server != str(error):
            typer.echo(f"failed: the Prefect server at {server} does not answer any more; start it again.", err=True)
            raise typer.Exit(1) from None
        if type(error).__name__ != "RunIncompleteError":
            raise
        typer.echo(f"failed: {_visible(error)}", err=True)
        raise typer.Exit(2 if isinstance(error.__cause__, (ValueError, OSError)) else 1) from None
    except KeyboardInterrupt:
        typer.echo("interrupted; run the same command again to go on.", err=True)
        sys.exit(130)
    except Exception as error:
        if not type(error).__module__.startswith(("httpx", "httpcore", "prefect.exceptions")):
            raise
        typer.echo(f"failed: the Prefect server stopped answering ({_visible(error)}); look at its log.", err=True)
        raise typer.Exit(1) from None


def _is_told(error: ValueError) -> bool:
    """Whether the project itself raised it, so that its text is meant for the caller."""
    if type(error).__module__.split(".")[0] in _PACKAGES:
        return True
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    if frame is None:
        return False
    file = Path(frame.tb_frame.f_code.co_filename)
    inside = file.is_relative_to(_PROJECT) and file.relative_to(_PROJECT).parts[0] in _PACKAGES
    return inside and linecache.getline(str(file), frame.tb_lineno).lstrip().startswith("raise")


def _visible(error: BaseException) -> str:
    """An error's text in one line, without what a terminal would obey."""
    return for_terminal(" ".join(str(error).split()))


def say(text: object, *, err: bool = False) -> None:
    """Print text, which may hold names from outside: what a terminal would obey is written out."""
    typer.echo(for_terminal(str(text)), err=err)


def require_plain_arguments() -> None:
    """End with one line where an argument holds control characters: whatever repeats it would send them on."""
    for argument in sys.argv[1:]:
        text = argument.encode(errors="surrogateescape").decode(errors="replace")  # bytes that the locale cannot read
        if for_terminal(text) != text:
            say(f"error: the argument {argument!r:.200} holds control characters; leave them out.", err=True)
            sys.exit(2)


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


def end_on_term() -> None:
    """A TERM ends a command as a Ctrl-C does."""

    def interrupt(_signal: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


class _OneLine(logging.Formatter):
    """A line of the log without what a terminal would obey."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return for_terminal(super().format(record))


def _tell_warnings() -> None:
    """Show warnings of this project's own code, e.g. of a damaged file that is made again; Prefect's stay off."""
    for room in ("tasks", "minority", "datasets"):
        logger = logging.getLogger(room)
        if not logger.handlers:
            handler = logging.StreamHandler()
            handler.setLevel(logging.WARNING)
            handler.setFormatter(_OneLine("warning: %(message)s"))
            logger.addHandler(handler)
