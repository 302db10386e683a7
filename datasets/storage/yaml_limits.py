"""YAML of strangers: a few lines of aliases ("billion laughs") stand for more values than fit into memory."""

import yaml

#: Most characters of a text, and most values that it may stand for with all its aliases written out.
LARGEST_TEXT = 4_000_000
MOST_VALUES = 200_000


def require_bounded_yaml(text: str) -> None:
    """Refuse a YAML text that would grow beyond all bounds, before anything is built of it.

    Args:
        text: One document.

    Raises:
        ValueError: It is too long, is no YAML, holds itself, is nested too deeply, or its aliases multiply too often.
    """
    if len(text) > LARGEST_TEXT:
        raise ValueError(f"it has {len(text)} characters, more than the {LARGEST_TEXT} of any settings; shorten it")
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = 0 if root is None else _size(root, {}, set())
    except RecursionError as error:
        raise ValueError("it is nested too deeply; flatten it") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    if values > MOST_VALUES:
        raise ValueError(f"its aliases stand for more than {MOST_VALUES} values; write out what is meant")


def _size(node: yaml.Node, known: dict[int, int], above: set[int]) -> int:
    """Values below a node with every alias written out, itself included."""
    if id(node) in above:
        raise ValueError("an alias in it holds itself; write out what is meant")
    if id(node) not in known:
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        known[id(node)] = 1 + sum(_size(child, known, above | {id(node)}) for child in children)
    return known[id(node)]
