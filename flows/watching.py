"""A run of a deployed preset, created from here and followed to its end."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any, TypeVar
from uuid import UUID

import httpx
import typer
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL
from prefect.utilities.urls import url_for

from flows.interruption import EXIT_CODE
from flows.output import note, say
from tasks.config.preset_files import options
from tasks.config.presets import FLOWS, validate
from tasks.errors import InputError, RunIncompleteError
from tasks.execution.terminal import read_line, stage_shown

_Answer = TypeVar("_Answer")
_SECONDS_BETWEEN_LOOKS = 2.0
#: A server that is started again is waited for so long.
_SECONDS_OF_SILENCE = 600.0
_SECONDS_BETWEEN_WAITING_NOTES = 30.0
#: What the states mean in which a run waits.
_WAITING = {
    "Scheduled": "no worker has taken it yet",
    "Pending": "a worker has taken it and starts its process",
    "Late": "no worker takes it; look whether one is online and free (prefect work-pool inspect gpu)",
    "AwaitingConcurrencySlot": "another run of this preset is on",
    "AwaitingRetry": "it is tried again soon",
    "Paused": "it waits for somebody to resume it",
    "Suspended": "it waits for its approval: fill in the form behind Resume",
}


def create_run(name: str, overrides: Mapping[str, Any]) -> FlowRun:
    """Create a run of a deployment, once its settings are checked.

    Args:
        name: The deployment's, e.g. "augment/digits".
        overrides: Dotted keys and their values.

    Raises:
        InputError: There is no such deployment on the server, a key or value is wrong, or the server refuses them.
    """
    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(name)
        except ObjectNotFound as error:
            raise InputError(
                f"the Prefect server has no deployment {name}; {options(name, _names(client))}. Hand presets to it by "
                "minority deploy NAME."
            ) from error
        flow = name.split("/")[0]
        if flow not in FLOWS:
            raise InputError(f"{name} is no deployment of this project; {options(flow, list(FLOWS))}.")
        changes = {**(deployment.parameters.get("overrides") or {}), **overrides}
        config = validate(FLOWS[flow], deployment.parameters.get("config", {}), overrides=changes)
        try:
            return client.create_flow_run_from_deployment(
                deployment.id,
                parameters={"overrides": changes},
                name=f"{flow} {config.name}",  # type: ignore[attr-defined]
            )
        except PrefectHTTPStatusError as error:
            if error.response.status_code != 409:
                raise
            reason = str(error.response.json().get("detail")).rstrip(".")
            raise InputError(
                f"the Prefect server refuses the run ({reason}); deploy the preset again where it is older than this "
                "program."
            ) from error


def address(run: FlowRun) -> str:
    """Where the run is shown in the UI."""
    return url_for(run) or f"{PREFECT_API_URL.value()}/flow_runs/{run.id}"


def follow(run: FlowRun) -> FlowRun:
    """Show a run's states and stages until it has ended, completed.

    Raises:
        RunIncompleteError: It failed, crashed or was cancelled; says why.
        typer.Exit: Interrupted (130); the run itself goes on.
    """
    try:
        with ExitStack() as shown, get_client(sync_client=True) as client:
            ended = _ended(run.id, client, shown)
    except KeyboardInterrupt:
        say(
            f"interrupted; the run goes on: {address(run)}; prefect flow-run cancel {run.id} ends it.",
            err=True,
        )
        raise typer.Exit(EXIT_CODE) from None
    state = ended.state
    assert state is not None, "it has ended"
    if not state.is_completed():
        reason = " ".join((state.message or "no reason is known").split()).rstrip(".")
        raise RunIncompleteError(f"{ended.name} ended {state.name}: {reason}; see {address(run)}")
    return ended


def _ended(run_id: UUID, client: SyncPrefectClient, shown: ExitStack) -> FlowRun:
    stages: dict[str, Any] = {}
    told, told_at = "", 0.0
    for run in _looks(run_id, client):
        for line in _progress_lines(run_id, client):
            if (found := read_line(line)) is None:
                continue
            name, done, total, unit = found
            if name not in stages:
                stages[name] = shown.enter_context(stage_shown(name, unit=unit)), -1
            count, before = stages[name]
            if before < total:
                count(done, total)
                stages[name] = count, done
        if run.state is None or run.state.is_final():
            return run
        state, now = run.state.name or run.state.type.value, time.monotonic()
        waits = state in _WAITING
        if state != told or (waits and now - told_at >= _SECONDS_BETWEEN_WAITING_NOTES):
            note(f"{run.name}: {state}" + (f", {_WAITING[state]}" if waits else ""))
            sys.stderr.flush()
            told, told_at = state, now
    raise AssertionError("it is looked at until it has ended")


def _looks(run_id: UUID, client: SyncPrefectClient) -> Iterator[FlowRun]:
    """The run again and again, as the server knows it."""
    while True:
        yield _answered(lambda: client.read_flow_run(run_id))
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _progress_lines(run_id: UUID, client: SyncPrefectClient) -> list[str]:
    """What the run's progress artifacts say, in the order in which its stages began."""
    mine = {"flow_run_id": {"any_": [str(run_id)]}, "type": {"any_": ["progress"]}}
    artifacts = _answered(lambda: client.request("POST", "/artifacts/filter", json={"artifacts": mine}).json())
    return [artifact["description"] or "" for artifact in sorted(artifacts, key=lambda artifact: artifact["created"])]


def _answered(ask: Callable[[], _Answer]) -> _Answer:
    """The server's answer; one that is started again is waited for."""
    silent_since = 0.0
    while True:
        try:
            return ask()
        except (httpx.TransportError, PrefectHTTPStatusError) as error:
            if isinstance(error, PrefectHTTPStatusError) and error.response.status_code < 500:
                raise
            silent_since = silent_since or time.monotonic()
            if time.monotonic() - silent_since > _SECONDS_OF_SILENCE:
                raise
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def _names(client: SyncPrefectClient) -> list[str]:
    """Of the deployments on the server."""
    flows = {flow["id"]: flow["name"] for flow in client.request("POST", "/flows/filter", json={}).json()}
    deployments = client.request("POST", "/deployments/filter", json={}).json()
    return sorted(f"{flows.get(deployment['flow_id'])}/{deployment['name']}" for deployment in deployments)
