"""Run and unit on every line that is logged while they are worked on, whichever library writes it.

A record gets the attributes `run_id` and `unit_id`, which Prefect's JSON formatter shows as fields of their own
(PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER=json), and its message begins with them.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

#: The ids of what this thread works on: {"run": ..., "unit": ...}.
_ids: ContextVar[dict[str, str] | None] = ContextVar("log_ids", default=None)


@contextmanager
def log_ids(**ids: str) -> Iterator[None]:
    """Put ids on every line that is logged in the block, beside those of blocks around it.

    Args:
        ids: `run`, `unit`: names as they are in the store.
    """
    if not isinstance(logging.getLogRecordFactory(), _Factory):
        logging.setLogRecordFactory(_Factory(logging.getLogRecordFactory()))
    token = _ids.set((_ids.get() or {}) | ids)
    try:
        yield
    finally:
        _ids.reset(token)


class _Factory:
    """Makes log records as the factory before it did, and puts the ids on them."""

    def __init__(self, make: Any) -> None:
        self._make = make

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._make(*args, **kwargs)
        ids = _ids.get()
        if ids:
            record.__dict__.update({f"{name}_id": value for name, value in ids.items()})
            record.msg = " ".join(f"{name} {value}" for name, value in ids.items()) + f": {record.msg}"
        return record
