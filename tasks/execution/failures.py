"""What a failure means: try again, go on with the rest, or end the run. And how tasks are tried again."""

import errno
from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from minority.runtime.memory import OutOfMemoryError

#: Reasons of the store that stay until somebody acts.
_LASTING = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
}


def is_transient(_task: Any, _task_run: Any, state: Any) -> bool:
    """Whether a failed task is worth another attempt: a store or network that did not answer.

    Prefect's retry condition: gets the task, its run and the failed state.
    """
    # In a notebook an event loop runs, and Prefect would give a coroutine.
    failure = state.result(raise_on_failure=False, _sync=True)
    return isinstance(failure, OSError) and failure.errno not in _LASTING


def ends_the_run(failure: BaseException) -> bool:
    """Whether the other units would fail in the same way: a wrong setting, a store that refuses, too little memory.

    Anything else may be one unit's own trouble; the others are made all the same.
    """
    if isinstance(failure, OSError):
        return failure.errno in _LASTING
    return isinstance(failure, (ValueError, OutOfMemoryError))


#: How a task is tried again: `@task(task_run_name=..., **TRIED_AGAIN)`. Waits some 2, 4, 8 and 16 seconds, each at most
#: twice as long, by chance, so that many units do not come back to a weak store at the same moment.
TRIED_AGAIN: dict[str, Any] = {
    "retries": 4,
    "retry_delay_seconds": exponential_backoff(backoff_factor=2),
    "retry_jitter_factor": 1.0,
    "retry_condition_fn": is_transient,
    "cache_policy": NO_CACHE,  # what lies in the store is the cache
    "persist_result": False,
}
