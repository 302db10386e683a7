"""Progress of a run's stages: on the terminal, in the log, and as Prefect artifacts."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging import get_run_logger
from prometheus_client import Counter

from tasks.execution.terminal import Pace, stage_shown

STAGE_SECONDS = Counter("minority_stage_seconds", "Seconds of the clock a stage took.", ["stage"])

_SECONDS_BETWEEN_UPDATES = 2.0


class Stage:
    """One stage's progress: call it with things done and things in total."""

    def __init__(self, name: str, unit: str, artifact: UUID, show: Callable[[int, int], None]) -> None:
        self._name = name
        self._unit = unit
        self._artifact = artifact
        self._show = show
        self._updated = 0.0
        self._pace = Pace(time.monotonic())

    def __call__(self, done: int, total: int) -> None:
        """Show that `done` of `total` are done."""
        self._show(done, total)
        now = time.monotonic()
        self._pace.add(now, done)
        if done == total or now - self._updated >= _SECONDS_BETWEEN_UPDATES:
            self._updated = now
            line = self._pace.line(self._name, done, total, unit=self._unit)
            update_progress_artifact(
                artifact_id=self._artifact, progress=100.0 * done / max(1, total), description=line
            )
            get_run_logger().info(line)


@contextmanager
def stage(name: str, *, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show a stage for as long as the block runs, and count its seconds.

    Outside of a run, as in a command that starts none, it is shown on the terminal alone.

    Args:
        name: What the stage is called; small letters, digits and blanks.
        unit: What is counted, e.g. "samples".
    """
    started = time.monotonic()
    try:
        with stage_shown(name, unit=unit) as show:
            if FlowRunContext.get() is None and TaskRunContext.get() is None:
                yield show
                return
            artifact = create_progress_artifact(progress=0.0, key=name.replace(" ", "-"), description=name)
            assert isinstance(artifact, UUID), "called from synchronous code"
            yield Stage(name, unit, artifact, show)
    finally:
        STAGE_SECONDS.labels(name).inc(time.monotonic() - started)
