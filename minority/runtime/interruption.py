"""Ending work that runs in threads, which nobody can end from outside: long loops ask now and then whether to stop."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ended: ContextVar[threading.Event | None] = ContextVar("ended", default=None)


class Interrupted(BaseException):
    """Raised inside work whose result nobody waits for any more. Like KeyboardInterrupt no error, hence its base."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Whatever leaves the block by an exception ends the work that threads do for it.

    Threads take part that are started within the block with a copy of its context (`contextvars.copy_context`).
    """
    ended = threading.Event()
    token = _ended.set(ended)
    try:
        yield
    except BaseException:
        ended.set()
        raise
    finally:
        _ended.reset(token)


def stop_if_interrupted() -> None:
    """To be called once a step in loops that take long.

    Raises:
        Interrupted: The block that this work was started in has been left by an exception.
    """
    ended = _ended.get()
    if ended is not None and ended.is_set():
        raise Interrupted("nobody waits for this result any more")
