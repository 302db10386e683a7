"""Progress of a run's stages: on the terminal, in the log, and as Prefect artifacts."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging import get_run_logger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_SECONDS_BETWEEN_UPDATES = 2.0


class Stage:
    """One stage's progress: call it with items done and items in total."""

    def __init__(self, name: str, artifact: UUID, bar: Progress | None) -> None:
        self._name = name
        self._artifact = artifact
        self._bar = bar
        self._task = bar.add_task(name, total=None) if bar is not None else None
        self._updated = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Show that `done` of `total` items are done."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total)
        now = time.monotonic()
        if done == total or now - self._updated >= _SECONDS_BETWEEN_UPDATES:
            self._updated = now
            update_progress_artifact(artifact_id=self._artifact, progress=100.0 * done / max(1, total))
            get_run_logger().info("%s: %d of %d", self._name, done, total)


@contextmanager
def stage(name: str) -> Iterator[Stage]:
    """Show a stage for as long as the block runs.

    Args:
        name: What the stage is called; small letters, digits and blanks.
    """
    artifact = create_progress_artifact(progress=0.0, key=name.replace(" ", "-"), description=name)
    assert isinstance(artifact, UUID), "called from synchronous code"
    if not sys.stderr.isatty():
        yield Stage(name, artifact, None)
        return
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield Stage(name, artifact, bar)
