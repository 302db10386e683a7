"""What all commands of the command line share: Prefect's environment, options, and errors in one line."""

import linecache
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from datasets.storage.escaping import for_terminal
from flows.interruption import EXIT_CODE, tell_interrupted
from flows.output import WANTED, say

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
        if _is_bug(error):
            _tell_bug(error)
            raise typer.Exit(1) from None
        if os.environ.get("MINORITY_DEBUG"):
            typer.echo(for_terminal(traceback.format_exc()), err=True)
        typer.echo(f"error: {_visible(error)}", err=True)
        raise typer.Exit(2) from None
    except (KeyboardInterrupt, typer.Abort):
        tell_interrupted()
        sys.exit(EXIT_CODE)
    except RuntimeError as error:
        server = str(error).removeprefix("Failed to reach API at ")  # Prefect has no type of its own for it
        if server != str(error):
            typer.echo(f"failed: the Prefect server at {server} does not answer any more; start it again.", err=True)
            raise typer.Exit(1) from None
        if type(error).__name__ != "RunIncompleteError":
            raise
        if os.environ.get("MINORITY_DEBUG"):
            typer.echo(for_terminal(traceback.format_exc()), err=True)
        if error.__cause__ is not None and _is_bug(error.__cause__):
            _tell_bug(error.__cause__)
            raise typer.Exit(1) from None
        typer.echo(f"failed: {_visible(error)}", err=True)
        raise typer.Exit(2 if isinstance(error.__cause__, (ValueError, OSError)) else 1) from None
    except Exception as error:
        if not type(error).__module__.startswith(("httpx", "httpcore", "prefect.exceptions")):
            raise
        typer.echo(f"failed: the Prefect server stopped answering ({_visible(error)}); look at its log.", err=True)
        raise typer.Exit(1) from None


def _tell_bug(error: BaseException) -> None:
    typer.echo(for_terminal("".join(traceback.format_exception(error))), err=True)
    typer.echo(f"bug: {_visible(error)}; please report it with the lines above.", err=True)


def _is_bug(error: BaseException) -> bool:
    """Whether it is a ValueError that a library raised: one of the project's own is meant for the caller."""
    if not isinstance(error, ValueError) or type(error).__module__.split(".")[0] in _PACKAGES:
        return False
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is None:  # it came from another process
        return False
    file = Path(place.tb_frame.f_code.co_filename)
    inside = file.is_relative_to(_PROJECT) and file.relative_to(_PROJECT).parts[0] in _PACKAGES
    return not inside or not linecache.getline(str(file), place.tb_lineno).lstrip().startswith("raise")


def _visible(error: BaseException) -> str:
    """An error's text in one line, without what a terminal would obey."""
    return for_terminal(" ".join(str(error).split()))


def fail_if_strict(complete: bool) -> None:
    """Exit 1 where less came out than was asked for, and the command was to be strict about it."""
    if WANTED.strict and not complete:
        raise typer.Exit(1)


def require_plain_arguments() -> None:
    """End with one line where an argument holds control characters: whatever repeats it would send them on."""
    for argument in sys.argv[1:]:
        text = argument.encode(errors="surrogateescape").decode(errors="replace")  # bytes that the locale cannot read
        if for_terminal(text) != text:
            say(f"error: the argument {argument!r:.200} holds control characters; leave them out.", err=True)
            sys.exit(2)


class _OneLine(logging.Formatter):
    """A line of the log without what a terminal would obey."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return for_terminal(f"{record.levelname.lower()}: {super().format(record)}")


def _tell_warnings() -> None:
    """Show warnings of this project's own code, e.g. of a damaged file that is made again; Prefect's stay off."""
    for room in ("tasks", "minority", "datasets"):
        logger = logging.getLogger(room)
        if not logger.handlers:
            handler = logging.StreamHandler()
            handler.setFormatter(_OneLine("%(message)s"))
            logger.addHandler(handler)
        logger.handlers[0].setLevel(logging.INFO if WANTED.verbose else logging.WARNING)
