"""YAML in which every word keeps the text that was written: `no`, `01` and `2020-01-01` may be names of classes.

YAML 1.1 takes unquoted words for truth values, numbers, dates and nothing. Whoever reads settings knows which of them
are texts, so that this reader gives both: the value, and the text it was written as.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import yaml

_TYPED = {f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float", "null")}
_MOST_VALUES = 1_000_000
_DEEPEST = 100


@dataclass(frozen=True)
class Written:
    """An unquoted scalar that YAML takes for a truth value, a number or nothing: that value, and the text itself."""

    value: bool | int | float | None
    text: str


def load_yaml(text: str) -> Any:
    """Read one YAML document.

    Args:
        text: The document.

    Returns:
        Lists, mappings with text keys, texts (dates too), and a `Written` for every unquoted scalar that YAML takes for
        something else. None for an empty document.

    Raises:
        ValueError: It is no YAML, names a key twice, holds itself, or holds more than a million values, as an alias of
            aliases may; in one line.
    """
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _require_small(node, {}, depth=0)
            return _convert(loader, node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())[:300]) from error


def plain(tree: Any) -> Any:
    """A tree of `load_yaml` with every scalar as YAML takes it; others are returned as they are, copied."""
    if isinstance(tree, Written):
        return tree.value
    if isinstance(tree, dict):
        return {key: plain(value) for key, value in tree.items()}
    return [plain(value) for value in tree] if isinstance(tree, list) else tree


def _require_small(node: yaml.Node, sizes: dict[int, int], *, depth: int) -> int:
    """How many values a node holds, aliases counted as often as they are used."""
    if depth > _DEEPEST:
        raise ValueError(f"it is nested more than {_DEEPEST} deep, or holds itself")
    if id(node) not in sizes:
        children: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        sizes[id(node)] = 1 + sum(_require_small(child, sizes, depth=depth + 1) for child in children)
    if sizes[id(node)] > _MOST_VALUES:
        raise ValueError(f"its aliases unfold to more than {_MOST_VALUES:,} values")
    return sizes[id(node)]


def _convert(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        counts = Counter(_key(key) for key, _ in node.value)
        twice = next((key for key, count in counts.items() if key != "<<" and count > 1), None)
        if twice is not None:
            raise ValueError(f"it names the key {twice!r:.80} twice (line {node.start_mark.line + 1} and below)")
        merged = yaml.MappingNode(node.tag, list(node.value), node.start_mark, node.end_mark, node.flow_style)
        loader.flatten_mapping(merged)
        return {_key(key): _convert(loader, value) for key, value in merged.value}
    if isinstance(node, yaml.SequenceNode):
        return [_convert(loader, child) for child in node.value]
    if not isinstance(node, yaml.ScalarNode) or node.tag not in _TYPED:
        return str(node.value)
    if not node.style:
        try:
            return Written(value=loader.construct_object(node), text=node.value)
        except ValueError:  # such as 0x_
            return str(node.value)
    return loader.construct_object(node)


def _key(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError(f"line {node.start_mark.line + 1} has a list or a mapping as a key")
    return str(node.value)
