"""What decides a run's images, out of its settings: those that differ from their defaults.

A setting that is added later stands at its default in every config of before, and so renames no run. A default that is
changed does change what such configs give: that raises RECIPE_VERSION, as every change of images does.
"""

import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined, to_jsonable_python

_NO_DEFAULT = object()


def recipe_of(decisive: Any) -> str:
    """12 hex digits over plain values. Numbers that are equal count as equal, however they are spelt (4 and 4.0)."""
    return hashlib.sha256(json.dumps(_spelt(decisive), sort_keys=True).encode()).hexdigest()[:12]


def differing(section: Any, *, exclude: Collection[str] = ()) -> dict[str, Any]:
    """The settings of a section that differ from their defaults, and those that have none; sections in it likewise.

    Args:
        section: A pydantic model or a dataclass.
        exclude: Settings at its top to leave out.

    Returns:
        Name -> plain JSON value. A section that is there though its default is none is a mapping, perhaps empty.
    """
    settings = {}
    for name, default in _defaults(section):
        value = getattr(section, name)
        if name in exclude or (default is not _NO_DEFAULT and _plain(value) == _plain(default)):
            continue
        settings[name] = _reduced(value, default)
    return settings


def _reduced(value: Any, default: Any) -> Any:
    if not _is_section(value):
        if isinstance(value, list | tuple):
            return [_reduced(entry, _NO_DEFAULT) for entry in value]
        return _plain(value)
    if type(default) is not type(value):
        return differing(value)
    # Against the section that stands there by default, which may differ from that of its class.
    return {
        name: _reduced(getattr(value, name), getattr(default, name))
        for name, _ in _defaults(value)
        if _plain(getattr(value, name)) != _plain(getattr(default, name))
    }


def _defaults(section: Any) -> Iterator[tuple[str, Any]]:
    """Every setting of a section with its default."""
    if isinstance(section, BaseModel):
        for name, field in type(section).model_fields.items():
            default = field.get_default(call_default_factory=True)
            yield name, _NO_DEFAULT if default is PydanticUndefined else default
        return
    for declared in dataclasses.fields(section):
        if declared.default_factory is not dataclasses.MISSING:
            yield declared.name, declared.default_factory()
        else:
            yield declared.name, _NO_DEFAULT if declared.default is dataclasses.MISSING else declared.default


def _is_section(value: Any) -> bool:
    return isinstance(value, BaseModel) or (dataclasses.is_dataclass(value) and not isinstance(value, type))


def _plain(value: Any) -> Any:
    return to_jsonable_python(value)


def _spelt(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _spelt(below) for name, below in value.items()}
    if isinstance(value, list | tuple):
        return [_spelt(below) for below in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
