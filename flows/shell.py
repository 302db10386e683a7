"""What all commands of the command line share: Prefect's environment, options, and errors in one line."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

# Set before anything imports Prefect. A user's own settings win.
_PROJECT = Path(__file__).resolve().parent.parent
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
    """Turn what went wrong into one line and an exit code; what was mended on the way is told, a line each."""
    _tell_warnings()
    # Errors known here: InputError (ValueError) and OSError are the caller's, RunIncompleteError is the run's.
    try:
        yield
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except RuntimeError as error:
        server = str(error).removeprefix("Failed to reach API at ")  # Prefect has no type of its own for it
        if server != str(error):
            typer.echo(
                f"error: no Prefect server answers at {server}; start it (prefect server start), or unset "
                "PREFECT_API_URL to run with a temporary one.",
                err=True,
            )
            raise typer.Exit(2) from None
        if type(error).__name__ != "RunIncompleteError":
            raise
        typer.echo(f"failed: {error}", err=True)
        raise typer.Exit(2 if isinstance(error.__cause__, (ValueError, OSError)) else 1) from None
    except KeyboardInterrupt:
        typer.echo("interrupted; run the same command again to go on.", err=True)
        sys.exit(130)


def _tell_warnings() -> None:
    """Show warnings of this project's own code, e.g. of a damaged file that is made again; Prefect's stay off."""
    for room in ("tasks", "minority", "datasets"):
        logger = logging.getLogger(room)
        if not logger.handlers:
            handler = logging.StreamHandler()
            handler.setLevel(logging.WARNING)
            handler.setFormatter(logging.Formatter("warning: %(message)s"))
            logger.addHandler(handler)
