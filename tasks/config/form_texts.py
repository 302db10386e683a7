"""What the form of a run says of every setting: the text of the config tree, or of the docstring beside the code."""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel

#: How the docstring of a section names its settings.
_HEADING = "Attributes:"


def sections_of(kind: type) -> dict[str, type]:
    """Every section of a config by its class's name, the config itself among them."""
    found: dict[str, type] = {}
    _collect(kind, found)
    return found


def text_of_section(section: type) -> str:
    """The first paragraph of a section's docstring, in one line."""
    return " ".join((inspect.getdoc(section) or "").split("\n\n")[0].split())


def texts_of_settings(section: type) -> dict[str, str]:
    """Setting -> what its section's docstring, or that of a class it is made of, says of it, in one line."""
    texts: dict[str, str] = {}
    for origin in reversed(section.__mro__):
        texts |= dict(_attributes(origin.__doc__ or ""))
    return texts


@lru_cache(maxsize=256)
def _hints(section: type) -> dict[str, Any]:
    return get_type_hints(section)


def _collect(hint: Any, found: dict[str, type]) -> None:
    for argument in get_args(hint):
        _collect(argument, found)
    if not isinstance(hint, type) or hint.__name__ in found:
        return
    if dataclasses.is_dataclass(hint) or issubclass(hint, BaseModel):
        found[hint.__name__] = hint
        for below in _hints(hint).values():
            _collect(below, found)


def _attributes(docstring: str) -> Iterator[tuple[str, str]]:
    """Name and text of every entry below "Attributes:"."""
    lines = inspect.cleandoc(docstring).splitlines()
    if _HEADING not in lines:
        return
    name = ""
    words: list[str] = []
    for line in [*lines[lines.index(_HEADING) + 1 :], "end"]:
        entry = re.match(r"    (\w+): (.*)", line)
        if (entry or not line.startswith("  ")) and name:
            yield name, " ".join(words)
            name = ""
        if entry:
            name, words = entry[1], [entry[2].strip()]
        elif name:
            words.append(line.strip())
        elif line and not line.startswith(" "):
            return
