"""Telling how far long loops are, to whoever listens: a library knows no terminal.

A loop counts its steps (`counted`); whoever starts it may give it a name in the reader's words (`called`) and hear the
counts (`heard_by`). Where nobody listens, counting costs next to nothing.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

#: Shows one loop for as long as it runs: given its name and the unit that is counted, it yields what takes the counts.
Listener = Callable[[str, str], AbstractContextManager[Callable[[int, int], None]]]

_listener: Listener | None = None
_changing = threading.Lock()
_name: ContextVar[str | None] = ContextVar("name", default=None)


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Let a listener hear of all loops of this process that begin within the block, in any thread."""
    global _listener
    with _changing:
        before, _listener = _listener, listener
    try:
        yield
    finally:
        with _changing:
            _listener = before


@contextmanager
def called(name: str) -> Iterator[None]:
    """Give the loops that this thread runs within the block a name, over the one they have by themselves.

    Args:
        name: In the words of whoever waits, e.g. "bits/dim of held-out images".
    """
    token = _name.set(name)
    try:
        yield
    finally:
        _name.reset(token)


@contextmanager
def counted(name: str, *, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Count the steps of a loop: call what is yielded with the steps done and the steps in all.

    Args:
        name: What the loop does, where `called` gives no name.
        unit: What is counted, e.g. "steps".

    Example:
        >>> with counted("training", unit="steps") as count:
        ...     for step in range(3):
        ...         count(step + 1, 3)
    """
    listener = _listener
    if listener is None:
        yield lambda done, total: None
        return
    with listener(_name.get() or name, unit) as count:
        yield count
