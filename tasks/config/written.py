"""Which scalars of a YAML text are texts: those where the config's schema wants one."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic import BaseModel

from datasets.storage.yaml_text import Written

_JSON_TYPES: dict[type, set[str]] = {
    bool: {"boolean"},
    int: {"integer", "number"},
    float: {"number"},
    type(None): {"null"},
    str: {"string"},
}


def as_declared(values: Any, kind: type[BaseModel]) -> Any:
    """A config's values with every scalar as its setting wants it: the class `no` stays a word, the seed 01 a number.

    Args:
        values: Plain values, or what `load_yaml` returns; parts that are shared are copied.
        kind: The config that they are for.

    Returns:
        Plain values. A scalar that YAML takes for a truth value, a number or nothing is that where the setting takes
        one, and the text that was written where the setting takes texts alone.
    """
    schema = _schema(kind)
    return _as_declared(values, [schema], schema)


def as_declared_at(value: Any, path: str, kind: type[BaseModel]) -> tuple[bool, Any]:
    """As `as_declared`, for one setting with a dotted name; and whether the config has a setting of that name."""
    schema = _schema(kind)
    nodes = [schema]
    for part in path.split("."):
        nodes = [below for node in _options(nodes, schema) if (below := _below(node, part)) is not None]
    return bool(nodes), _as_declared(value, nodes, schema)


@lru_cache(maxsize=16)
def _schema(kind: type[BaseModel]) -> dict[str, Any]:
    return kind.model_json_schema()


def _as_declared(value: Any, nodes: list[dict[str, Any]], schema: dict[str, Any]) -> Any:
    options = _options(nodes, schema)
    if isinstance(value, Written):
        return _scalar(value, options)
    if isinstance(value, Mapping):
        return {
            key: _as_declared(
                below, [child for node in options if (child := _below(node, str(key))) is not None], schema
            )
            for key, below in value.items()
        }
    if isinstance(value, list):
        return [_as_declared(entry, [node for option in options for node in _items(option)], schema) for entry in value]
    return value


def _scalar(written: Written, options: list[dict[str, Any]]) -> Any:
    """The value where a setting takes such ones, or says nothing; else the text, also where a list or more is due."""
    if any(_takes(node, written.value) for node in options):
        return written.value
    takes_text = any(_takes(node, written.text) for node in options)
    takes_no_scalar = bool(options) and all(node.get("type") in ("object", "array") for node in options)
    return written.text if takes_text or takes_no_scalar else written.value


def _takes(node: dict[str, Any], value: bool | float | str | None) -> bool:
    return value in node["enum"] if "enum" in node else node.get("type") in _JSON_TYPES[type(value)]


def _options(nodes: list[dict[str, Any]], schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The schemas that a value may follow, references and alternatives resolved."""
    options: list[dict[str, Any]] = []
    for node in nodes:
        alternatives = [*node.get("anyOf", []), *node.get("oneOf", []), *node.get("allOf", [])]
        if "$ref" in node:
            alternatives.append(schema["$defs"][node["$ref"].rsplit("/", 1)[1]])
        options += _options(alternatives, schema) if alternatives else [node]
    return options


def _below(node: dict[str, Any], key: str) -> dict[str, Any] | None:
    if key in node.get("properties", {}):
        below: dict[str, Any] = node["properties"][key]
        return below
    others = node.get("additionalProperties")
    return others if isinstance(others, dict) else None


def _items(node: dict[str, Any]) -> list[dict[str, Any]]:
    items = node.get("items")
    return [*node.get("prefixItems", []), *([items] if isinstance(items, dict) else [])]
