"""What a command prints, and where.

Standard output holds the result alone, and with --json it is one JSON document. Everything else goes to standard error:
notes on the way, progress, warnings, errors. --quiet leaves of these the warnings and errors; --verbose adds the log.
"""

import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import typer

from datasets.storage.escaping import for_terminal


@dataclass
class Wanted:
    """How the command that runs was asked to print.

    Attributes:
        json: Its result as one JSON document.
        quiet: Results, warnings and errors alone.
        verbose: The log, too.
        strict: To fail where less came out than was asked for.
    """

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    strict: bool = False


#: Of the command of this process.
WANTED = Wanted()


def say(text: object, *, err: bool = False) -> None:
    """Print text, which may hold names from outside: what a terminal would obey is written out."""
    typer.echo(for_terminal(str(text)), err=err)


def note(text: object) -> None:
    """Tell something on the way, unless the command was asked to be quiet."""
    if not WANTED.quiet:
        say(f"note: {text}", err=True)


def result(document: Callable[[], Mapping[str, Any]], *, show: Callable[[], None]) -> None:
    """Print what a command found.

    Args:
        document: Makes what --json prints. Numbers that are none (NaN, infinity) become null, and where they stood is
            listed under "no_figure".
        show: Prints it for people.
    """
    if not WANTED.json:
        show()
        return
    missing: list[str] = []
    content = _figures(document(), "", missing)
    if missing:
        content["no_figure"] = dict.fromkeys(missing, "there is nothing to compute it from")
    typer.echo(json.dumps(content, indent=1, allow_nan=False, default=str))


def _figures(value: Any, place: str, missing: list[str]) -> Any:
    """The value in JSON's words, the places of numbers that are none noted."""
    if isinstance(value, Mapping):
        return {str(key): _figures(below, f"{place}.{key}".lstrip("."), missing) for key, below in value.items()}
    if isinstance(value, (list, tuple)):
        return [_figures(below, f"{place}.{i}".lstrip("."), missing) for i, below in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        missing.append(place)
        return None
    return value


@contextmanager
def progress() -> Iterator[None]:
    """Show how far long work is: bars on a terminal, else a line a stage or every half minute; nothing if quiet."""
    from tasks.execution.terminal import progress_shown

    with progress_shown(silent=WANTED.quiet):
        yield


def show_log() -> None:
    """Let Prefect's log and the project's own be seen (--verbose)."""
    os.environ["PREFECT_LOGGING_LEVEL"] = os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "INFO"
    for room in ("tasks", "minority", "datasets"):
        logging.getLogger(room).setLevel(logging.INFO)
