"""Progress for whoever sits before a command: bars on a terminal, now and then a line where output is piped.

It goes to standard error, and hears of every long loop of this process: of a run's stages (tasks/execution/progress.py)
and of what the libraries count (minority/runtime/progress.py). While a stage is shown, what its parts count is not.
"""

import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from datasets.storage.escaping import for_terminal
from minority.runtime.progress import heard_by

#: A loop that ends sooner is not worth a line; where output is piped, a longer one has a line so often, and a last one.
_SECONDS_UNTOLD = 2.0
_SECONDS_BETWEEN_LINES = 30.0
#: What was done before is forgotten: units found in the store would promise too much for those that must be made.
_SECONDS_REMEMBERED = 120.0
#: What begins a piped line of progress.
PREFIX = "progress: "


class Pace:
    """How fast a loop goes, evaluated by its last two minutes."""

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

    def text(self, total: int, *, unit: str) -> str:
        """Rate and time left in words; empty where nothing was done yet."""
        left = self.left(total)
        return "" if left is None else f"{self.rate:.3g} {unit}/s, {left} left"

    def line(self, name: str, done: int, total: int, *, unit: str) -> str:
        """How far a loop is, in a line."""
        return f"{name}: {done} of {total} {unit}, {self.text(total, unit=unit) or 'no pace yet'}"


def read_line(line: str) -> tuple[str, int, int, str] | None:
    """Name, things done, things in total and what they are, of a line that `Pace.line` made; None of any other."""
    found = re.fullmatch(r"(.*): (\d+) of (\d+) (.+?), .*", line)
    return None if found is None else (found[1], int(found[2]), int(found[3]), found[4])


class Board:
    """Where loops are shown.

    Args:
        stream: Where to.
        bars: Bars for a terminal; else lines.
        clock: Seconds that only grow.
    """

    def __init__(self, stream: TextIO, *, bars: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._bars = bars
        self._screen: Progress | None = None  # while there is a bar on it
        self._shown = self._stages = 0
        self._lock = threading.RLock()

    @contextmanager
    def stage(self, name: str, unit: str) -> Iterator[Callable[[int, int], None]]:
        """Show a stage; loops that begin before it ends are its parts, and not shown beside it."""
        with self._lock:
            self._stages += 1
        try:
            with self._loop(name, unit, least=0.0) as count:
                yield count
        finally:
            with self._lock:
                self._stages -= 1

    @contextmanager
    def loop(self, name: str, unit: str) -> Iterator[Callable[[int, int], None]]:
        """Show a loop that is no part of a stage, once it has taken long."""
        if self._stages:
            yield lambda done, total: None
            return
        with self._loop(name, unit, least=_SECONDS_UNTOLD) as count:
            yield count

    @contextmanager
    def _loop(self, name: str, unit: str, *, least: float) -> Iterator[Callable[[int, int], None]]:
        shown = _Loop(for_terminal(name), unit, least=least, now=self._clock())
        try:
            yield lambda done, total: self._count(shown, done, total)
        finally:
            with self._lock:
                self._end(shown)

    def _count(self, loop: "_Loop", done: int, total: int) -> None:
        with self._lock:
            now = self._clock()
            loop.pace.add(now, done)
            if now - loop.began < loop.least:
                return
            if not self._bars:
                if done >= total or now - loop.told >= _SECONDS_BETWEEN_LINES:
                    loop.told = now
                    self._stream.write(f"{PREFIX}{loop.pace.line(loop.name, done, total, unit=loop.unit)}\n")
                    self._stream.flush()
                return
            if self._screen is None:
                self._screen = _bars(self._stream)
                self._screen.start()
            if loop.bar is None:
                loop.bar = self._screen.add_task(loop.name, total=total, pace="")
                self._shown += 1
            self._screen.update(loop.bar, completed=done, total=total, pace=loop.pace.text(total, unit=loop.unit))

    def _end(self, loop: "_Loop") -> None:
        if self._screen is None or loop.bar is None:
            return
        self._screen.stop_task(loop.bar)
        self._shown -= 1
        if self._shown == 0:  # what was shown stays on the screen, and what comes next begins below it
            self._screen.stop()
            self._screen = None


class _Loop:
    def __init__(self, name: str, unit: str, *, least: float, now: float) -> None:
        self.name, self.unit, self.least, self.began, self.told = name, unit, least, now, now
        self.pace = Pace(now)
        self.bar: TaskID | None = None


def _bars(stream: TextIO) -> Progress:
    columns = (
        TextColumn("{task.description:<24}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[pace]}", markup=False),
    )
    return Progress(*columns, console=Console(file=stream))


_board: Board | None = None
_silent = False


@contextmanager
def progress_shown(*, silent: bool = False) -> Iterator[None]:
    """Show all long loops of the block on standard error, or none of them.

    Args:
        silent: Show nothing.
    """
    global _board, _silent
    before = _board, _silent
    _board, _silent = None if silent else Board(sys.stderr, bars=sys.stderr.isatty()), silent
    try:
        if _board is None:
            yield
        else:
            with heard_by(_board.loop):
                yield
    finally:
        _board, _silent = before


@contextmanager
def stage_shown(name: str, *, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show one stage of a run, as `progress_shown` says; a run that no command started has bars on a terminal alone."""
    if _board is not None:
        with _board.stage(name, unit) as count:
            yield count
    elif not _silent and sys.stderr.isatty():
        with progress_shown(), stage_shown(name, unit=unit) as count:
            yield count
    else:
        yield lambda done, total: None
