"""`minority clean`: what may go from a store, told or removed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets.runs.cleaning import Leftover, find_leftovers, remove_leftover
from datasets.storage.store import Store
from tasks.errors import InputError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_age(text: str) -> float:
    """Seconds of an age such as "7d", "12h", "30m" or "90s".

    Raises:
        InputError: It is none.
    """
    match = re.fullmatch(r"(\d+)([smhd])", text)
    if match is None:
        raise InputError(f"--older-than must be a whole number and s, m, h or d, e.g. 7d, got {text!r}.")
    return float(match[1]) * _SECONDS[match[2]]


@dataclass(frozen=True)
class Cleaned:
    """What was looked at, and what became of it.

    Attributes:
        found: The leftovers.
        removed: Those of them that are gone.
        delete: Whether they were to be removed.
    """

    found: Sequence[Leftover]
    removed: Sequence[Leftover]
    delete: bool

    @property
    def bytes(self) -> int:
        """Bytes that were freed, or that would be."""
        return sum(left.bytes for left in (self.removed if self.delete else self.found))

    def lines(self) -> list[str]:
        """One line for each leftover, and one for all of them together."""
        lines = [_line(left, verdict=_verdict(left in self.removed, delete=self.delete)) for left in self.found]
        if self.delete:
            return [*lines, f"{len(self.removed)} of {len(self.found)} removed, {_size(self.bytes)} freed."]
        return [*lines, f"{len(self.found)} found, {_size(self.bytes)}; nothing was touched: --delete removes them."]

    def document(self) -> dict[str, Any]:
        """The same in JSON's words."""
        found = [
            {
                "kind": left.kind,
                "path": left.path,
                "files": len(left.files),
                "bytes": left.bytes,
                "seconds_untouched": left.age,
                "removed": left in self.removed,
            }
            for left in self.found
        ]
        return {"delete": self.delete, "bytes": self.bytes, "leftovers": found}


def clean_store(url: str, *, older_than: float, delete: bool) -> Cleaned:
    """Find leftovers, and remove them where that is wanted; see datasets/runs/cleaning.py.

    Args:
        url: The store of all datasets.
        older_than: Seconds for which nothing was written in it.
        delete: Remove them. Otherwise nothing is touched.

    Raises:
        OSError: The store cannot be read or written.
        ValueError: The URL is none.
    """
    store = Store(url)
    leftovers = find_leftovers(store, older_than=older_than)
    removed = [left for left in leftovers if delete and remove_leftover(store, left, older_than=older_than)]
    return Cleaned(leftovers, removed, delete)


def _verdict(gone: bool, *, delete: bool) -> str:
    return ("removed" if gone else "kept, in use again") if delete else "would go"


def _line(left: Leftover, *, verdict: str) -> str:
    age = f"{left.age / 86400:.1f} days" if left.age >= 86400 else f"{left.age / 3600:.1f} hours"
    return f"{verdict}: {left.kind} {left.path}, {len(left.files)} files, {_size(left.bytes)}, untouched for {age}"


def _size(count: int) -> str:
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g} {unit}" if unit != "B" else f"{count} B"
