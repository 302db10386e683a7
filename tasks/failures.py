"""Which failures pass by themselves: only those are retried."""

import errno
from typing import Any

#: Reasons for which trying again is pointless until somebody acts.
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
    failure = state.result(raise_on_failure=False)
    return isinstance(failure, OSError) and failure.errno not in _LASTING
