"""Fan-out: units side by side, on a Ray cluster where RAY_ADDRESS is set, else in threads of this process.

One loop serves both. It submits no more units than can soon run, so that ten thousand units are never ten thousand
tasks; what it submits are ids and URLs, and what comes back is small.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, cast

from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_CLIENT_METRICS_ENABLED, temporary_settings
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from minority.runtime.interruption import interruptible
from tasks.errors import RunIncompleteError
from tasks.execution.capacity import Demand, machines, on_ray, takes_gpu, worker_slots
from tasks.execution.failures import ends_the_run
from tasks.execution.lost_workers import LOSSES_A_UNIT, is_lost


def task_runner() -> TaskRunner[PrefectFuture[Any]]:
    """Where a flow's tasks run. Read when the flow's module is imported: RAY_ADDRESS belongs in the environment."""
    if on_ray():
        from tasks.execution.ray_runner import CancellableRayTaskRunner

        return cast(TaskRunner[PrefectFuture[Any]], CancellableRayTaskRunner(init_kwargs={"log_to_driver": False}))
    # `fan_out` bounds how many threads are in use.
    return cast(TaskRunner[PrefectFuture[Any]], ThreadPoolTaskRunner())


def fan_out(
    submit: Callable[[Any], Any],
    items: Iterable[Any],
    *,
    what: str,
    name: Callable[[Any], str],
    on_done: Callable[[int, int], None],
    demand: Demand | None = None,
    size: Callable[[Any], int] = lambda item: 1,
    on_result: Callable[[Any], None] = lambda result: None,
) -> None:
    """Run a task on every item and wait for all of them. One lost item never loses the rest.

    Args:
        submit: Submits the task for one item and returns its future.
        items: What to work on.
        what: What messages call an item, e.g. "units".
        name: The name of an item in messages.
        on_done: Called with the size done and the size in total.
        demand: What one item occupies; None: one GPU where there is one, else one core.
        size: How much an item counts for in `on_done`.
        on_result: Called with what the task of each item returned.

    Raises:
        InputError: No machine has what one item occupies; nothing was submitted.
        RunIncompleteError: Some items failed; names the first of them and its reason, which is the error's cause.
            After all have ended, or at once where the reason would be the same for the rest: those are not begun.
    """
    items = list(items)
    if not items:
        return
    demand = demand or Demand()
    worker_slots(demand)  # refuses what can never run
    failures: list[tuple[str, BaseException]] = []
    done, total = 0, sum(size(item) for item in items)
    with interruptible(), _reserved(demand):
        for item, outcome in _outcomes(submit, items, demand=demand):
            if isinstance(outcome, BaseException):
                failures.append((name(item), outcome))
                if ends_the_run(outcome):
                    raise RunIncompleteError(_stopped(failures[-1], total=len(items), what=what)) from outcome
            else:
                on_result(outcome)
            done += size(item)
            on_done(done, total)
    if failures:
        failures.sort(key=lambda failure: failure[0])
        raise RunIncompleteError(_summary(failures, total=len(items), what=what)) from failures[0][1]


def _outcomes(submit: Callable[[Any], Any], items: Sequence[Any], *, demand: Demand) -> Iterator[tuple[Any, Any]]:
    """Every item with what its task returned or raised, as they end."""
    finished: SimpleQueue[Any] = SimpleQueue()
    waiting = iter(items)
    running: dict[Any, Any] = {}
    try:
        while True:
            for item in waiting:
                future = submit(item)
                running[future.task_run_id] = (item, future)
                future.add_done_callback(finished.put)
                if len(running) >= _submitted_at_once(demand):
                    break
            if not running:
                return
            item, future = running.pop(finished.get().task_run_id)
            yield item, _outcome(future)
    finally:
        for _, future in running.values():
            _give_up(future)


def _submitted_at_once(demand: Demand) -> int:
    # Two a worker slot on a cluster: the next is there when one ends, although messages take their time.
    return worker_slots(demand) * (2 if on_ray() else 1)


def _outcome(future: Any) -> Any:
    try:
        return future.result(raise_on_failure=False)
    except Exception as lost:
        if not is_lost(lost):
            raise
        return lost


def _give_up(future: Any) -> None:
    """Take back what is submitted. A thread's work ends by itself, see minority/runtime/interruption.py."""
    if on_ray():
        import ray

        ray.cancel(future.wrapped_future, force=True)


@contextmanager
def _reserved(demand: Demand) -> Iterator[None]:
    """On a cluster, everything submitted in the block gets what one item occupies to itself."""
    if not on_ray():
        yield
        return
    from prefect_ray.context import remote_options

    gpus = demand.workers.gpus if takes_gpu(demand, machines()) else 0
    with (
        # Workers of one machine would all want the same port.
        temporary_settings({PREFECT_CLIENT_METRICS_ENABLED: False}),
        # max_calls=0 keeps the process and the model in it.
        remote_options(
            num_gpus=gpus, num_cpus=0 if gpus else demand.workers.cpus, max_calls=0, max_retries=LOSSES_A_UNIT
        ),
    ):
        yield


def _summary(failures: Sequence[tuple[str, BaseException]], *, total: int, what: str) -> str:
    names = ", ".join(name for name, _ in failures[:5]) + (", ..." if len(failures) > 5 else "")
    first, reason = failures[0]
    return (
        f"{len(failures)} of {total} {what} failed ({names}); {first}: {str(reason).rstrip('.')}. "
        "What is done is kept; run the same command again to make the rest."
    )


def _stopped(failure: tuple[str, BaseException], *, total: int, what: str) -> str:
    name, reason = failure
    return (
        f"{name} of {total} {what} failed for a reason that the others share, so the rest were not begun: "
        f"{str(reason).rstrip('.')}. What is done is kept; run the same command again when that is mended."
    )
