"""The order of class names, which decides their labels."""

import re
from collections.abc import Iterable

_WHOLE = re.compile(r"[+-]?[0-9]+")


def in_class_order(names: Iterable[str]) -> list[str]:
    """Names sorted as text, or as numbers where all of them are whole numbers: 2 comes before 10.

    Raises:
        ValueError: Two names are the same number.
    """
    ordered = sorted(names)
    numbers = whole_numbers(ordered)
    if numbers is None:
        return ordered
    named: dict[int, str] = {}
    for number, name in zip(numbers, ordered, strict=True):
        if number in named:
            raise ValueError(f"the classes {named[number]!r} and {name!r} are the same number; rename or merge them.")
        named[number] = name
    return [named[number] for number in sorted(named)]


def whole_numbers(names: Iterable[str]) -> list[int] | None:
    """The numbers that names are, or None where one of them is no whole number."""
    listed = list(names)
    if not all(_WHOLE.fullmatch(name) and len(name) < 20 for name in listed):
        return None
    return [int(name) for name in listed]
