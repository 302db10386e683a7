"""Options that commands share. Each command names those that it takes; all take --quiet, --verbose and --debug."""

import functools
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.output import WANTED, show_log

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results, warnings and errors alone.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print the log, too.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error beside its line.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON document; all else goes to standard error.")
]
_OPTIONS: dict[str, Any] = {
    "config": Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Take presets from this YAML file, e.g. one that init wrote, and no other."),
    ],
    "strict": Annotated[
        bool, typer.Option("--strict", help="Exit 1 where less came out than was asked for; it is told in any case.")
    ],
    "json": Json,
    "quiet": Quiet,
    "verbose": Verbose,
    "debug": Debug,
}
_EVERYWHERE = ("quiet", "verbose", "debug")


def shared(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let a command take shared options beside its own.

    Args:
        names: Of config, strict and json, those that mean something to it.
    """
    taken = [*names, *_EVERYWHERE]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**given: Any) -> None:
            with _asked(**{name: given.pop(name) for name in taken}):
                command(**given)

        signature = inspect.signature(command)
        further = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None if name == "config" else False,
                annotation=_OPTIONS[name],
            )
            for name in taken
        ]
        run.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*signature.parameters.values(), *further]
        )
        return run

    return decorate


@contextmanager
def _asked(*, config: Path | None = None, debug: bool = False, **asked: bool) -> Iterator[None]:
    """While the block runs, print and look for presets as asked."""
    before, environment = replace(WANTED), dict(os.environ)
    for name, wanted in asked.items():
        setattr(WANTED, name, wanted or getattr(WANTED, name))
    if config is not None:
        os.environ["MINORITY_CONFIG"] = str(config.absolute())
    if debug:
        os.environ["MINORITY_DEBUG"] = "1"
    if WANTED.verbose:
        show_log()
    try:
        yield
    finally:
        vars(WANTED).update(vars(before))
        for name in ("MINORITY_CONFIG", "MINORITY_DEBUG"):
            if name in environment:
                os.environ[name] = environment[name]
            else:
                os.environ.pop(name, None)
