"""Progress of a run's stages: on the terminal, in the log, and as Prefect artifacts."""

import base64
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.logging import get_run_logger
from prometheus_client import Counter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

STAGE_SECONDS = Counter("minority_stage_seconds", "Seconds of the clock a stage took.", ["stage"])

_SECONDS_BETWEEN_UPDATES = 2.0
#: What was done before is forgotten: units found in the store would promise too much for those that must be made.
_SECONDS_REMEMBERED = 120.0


class Pace:
    """How fast a stage goes, evaluated by its last two minutes."""

    def __init__(self, now: float) -> None:
        self._seen = deque([(now, 0)])

    def add(self, now: float, done: int) -> None:
        """Remember that so many are done by now."""
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] >= _SECONDS_REMEMBERED:
            self._seen.popleft()

    @property
    def rate(self) -> float:
        """Things done a second; 0 where none was done yet."""
        (since, before), (now, done) = self._seen[0], self._seen[-1]
        return (done - before) / (now - since) if now > since else 0.0

    def left(self, total: int) -> timedelta | None:
        """Time until all are done at this rate, in whole seconds; None where nothing was done yet."""
        return timedelta(seconds=round((total - self._seen[-1][1]) / self.rate)) if self.rate else None


class Stage:
    """One stage's progress: call it with things done and things in total."""

    def __init__(self, name: str, unit: str, artifact: UUID, bar: Progress | None) -> None:
        self._name = name
        self._unit = unit
        self._artifact = artifact
        self._bar = bar
        self._task = bar.add_task(name, total=None, pace="") if bar is not None else None
        self._updated = 0.0
        self._pace = Pace(time.monotonic())

    def __call__(self, done: int, total: int) -> None:
        """Show that `done` of `total` are done."""
        now = time.monotonic()
        self._pace.add(now, done)
        left = self._pace.left(total)
        pace = "" if left is None else f"{self._pace.rate:.3g} {self._unit}/s, {left} left"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, pace=pace)
        if done == total or now - self._updated >= _SECONDS_BETWEEN_UPDATES:
            self._updated = now
            line = f"{self._name}: {done} of {total} {self._unit}, {pace or 'no pace yet'}"
            update_progress_artifact(
                artifact_id=self._artifact, progress=100.0 * done / max(1, total), description=line
            )
            get_run_logger().info(line)


@contextmanager
def stage(name: str, *, unit: str) -> Iterator[Stage]:
    """Show a stage for as long as the block runs, and count its seconds.

    Args:
        name: What the stage is called; small letters, digits and blanks.
        unit: What is counted, e.g. "samples".
    """
    artifact = create_progress_artifact(progress=0.0, key=name.replace(" ", "-"), description=name)
    assert isinstance(artifact, UUID), "called from synchronous code"
    started = time.monotonic()
    try:
        if not sys.stderr.isatty():
            yield Stage(name, unit, artifact, None)
            return
        columns = (
            TextColumn("{task.description:<24}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[pace]}"),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            yield Stage(name, unit, artifact, bar)
    finally:
        STAGE_SECONDS.labels(name).inc(time.monotonic() - started)


def show_picture(picture: Path, *, key: str, description: str) -> None:
    """Show a PNG as an artifact.

    Args:
        picture: The file.
        key: The artifact's key; small letters, digits and dashes.
        description: What it shows.
    """
    encoded = base64.b64encode(picture.read_bytes()).decode()
    create_markdown_artifact(
        key=key, markdown=f"![{description}](data:image/png;base64,{encoded})", description=description
    )
