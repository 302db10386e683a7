"""Where fan-out runs: threads of this process. One lost item never loses the rest."""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from tasks.errors import RunIncompleteError


def task_runner() -> TaskRunner[PrefectFuture[Any]]:
    """One unit at a time on a GPU, one a core without."""
    workers = 1 if torch.cuda.is_available() else max(1, os.cpu_count() or 1)
    return cast(TaskRunner[PrefectFuture[Any]], ThreadPoolTaskRunner(max_workers=workers))


def fan_out(
    submit: Callable[[Any], Any],
    items: Iterable[Any],
    *,
    what: str,
    name: Callable[[Any], str],
    on_done: Callable[[int, int], None],
) -> None:
    """Run a task on every item and wait for all of them.

    Args:
        submit: Submits the task for one item and returns its future.
        items: What to work on.
        what: What messages call an item, e.g. "units".
        name: The name of an item in messages.
        on_done: Called with items done and items in total.

    Raises:
        RunIncompleteError: Some items failed, after all have ended; names the first of them and its reason, which is
            the error's cause.
    """
    items = list(items)
    futures = {submit(item): item for item in items}
    failures: list[tuple[str, BaseException]] = []
    for done, future in enumerate(as_completed(list(futures)), start=1):
        outcome = future.result(raise_on_failure=False)
        if isinstance(outcome, BaseException):
            failures.append((name(futures[future]), outcome))
        on_done(done, len(items))
    if failures:
        failures.sort(key=lambda failure: failure[0])
        raise RunIncompleteError(_summary(failures, total=len(items), what=what)) from failures[0][1]


def _summary(failures: Sequence[tuple[str, BaseException]], *, total: int, what: str) -> str:
    names = ", ".join(name for name, _ in failures[:5]) + (", ..." if len(failures) > 5 else "")
    first, reason = failures[0]
    return (
        f"{len(failures)} of {total} {what} failed ({names}); {first}: {str(reason).rstrip('.')}. "
        "What is done is kept; run the same command again to make the rest."
    )
