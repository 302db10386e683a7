"""Commands for a Prefect server with workers: hand presets to it, start a run there, follow it."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.options import shared
from flows.output import progress, result, say
from flows.shell import Settings, errors_in_one_line

deployed = typer.Typer()


@deployed.command()
@shared("config", "json")
def deploy(
    name: Annotated[str, typer.Argument(help="A preset's name; all flows of that name are deployed.")],
) -> None:
    """Hand the presets of one name to the Prefect server of PREFECT_API_URL.

    Example: `minority deploy faces`
    """
    with errors_in_one_line():
        from tasks.config.preset_files import deployments_of

        file, flows = deployments_of(name)
        command = [str(Path(sys.executable).with_name("prefect")), "--no-prompt", "deploy", "--prefect-file", str(file)]
        for flow in flows:
            command += ["--name", f"{flow}/{name}"]
        ended = subprocess.run(command, check=False, stdout=sys.stderr)
        if ended.returncode:
            say(f"failed: prefect deploy ended with exit code {ended.returncode}.", err=True)
            raise typer.Exit(1)
        names = [f"{flow}/{name}" for flow in flows]
        result(lambda: {"deployed": names}, show=lambda: say(f"deployed: {', '.join(names)}"))


@deployed.command()
@shared("json")
def submit(
    deployment: Annotated[
        str, typer.Argument(help="A preset that was deployed, e.g. augment/digits; digits alone is augment/digits.")
    ],
    assignments: Settings = None,
    store: Annotated[str | None, typer.Option(help="Folder or fsspec URL that receives the dataset.")] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow the run to its end; exits 0 where it completed, else 1.")
    ] = False,
) -> None:
    """Start a run of a deployed preset on a worker; its settings are checked before the run is created.

    Example: `minority submit augment/digits --set seed=1 --watch`
    """
    with errors_in_one_line(), progress():
        from flows.server import require_named_server
        from tasks.config.presets import parse_overrides

        overrides = parse_overrides(assignments or []) | ({"store": store} if store else {})
        require_named_server()
        from flows.watching import address, create_run, follow

        run = create_run(deployment if "/" in deployment else f"augment/{deployment}", overrides)
        if watch:
            say(f"started: {run.name}, {address(run)}", err=True)
            run = follow(run)
        state = run.state_name or "Scheduled"
        document = {"flow_run": str(run.id), "name": run.name, "state": state, "address": address(run)}
        result(lambda: document, show=lambda: say(f"{state.lower()}: {run.name}, {address(run)}"))
