"""What of one guidance method is searched: grids of values of its own settings, as the method's file declares them.

A grid lists ascending values of some settings, and each combination of them is searched. Settings that no grid lists
are kept as the preset has them.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, make_dataclass, replace
from functools import lru_cache
from typing import Any

from minority.guidance.method import Method, default_of
from minority.guidance.registry import METHODS


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Values of a method's settings; the subclass of a method has a field for each of them, empty where it is kept."""

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """The settings that it lists, with their values."""
        values = {axis.name: getattr(self, axis.name) for axis in fields(self)}
        return {name: values for name, values in values.items() if values}

    @property
    def leading(self) -> str:
        """The first setting that is searched at all: the strength, by which a method is present or absent."""
        several = [name for name, values in self.axes.items() if len(values) > 1]
        return several[0] if several else next(iter(self.axes))

    def check(self, name: str) -> None:
        """Refuse a grid that lists nothing, or values that do not ascend.

        Args:
            name: What the grid is called in the message.

        Raises:
            ValueError: Naming the setting and its values.
        """
        if not self.axes:
            raise ValueError(f"{name} lists no values; give those of a setting, or leave the grid out.")
        for axis, values in self.axes.items():
            if len(values) > 1 and list(values) != sorted(set(values)):
                raise ValueError(f"{name}.{axis} must ascend without repetition, got {values}.")


def _grid_type(kind: type[Method]) -> type[Grid]:
    """A grid whose fields are the settings of a method, in their order."""
    axes: list[Any] = [
        (setting.name, tuple[setting.type, ...], field(default=()))  # type: ignore[name-defined]
        for setting in fields(kind)  # type: ignore[arg-type]
    ]
    made = make_dataclass(f"{kind.__name__}Grid", axes, bases=(Grid,), frozen=True, kw_only=True)
    made.__module__ = __name__
    made.__doc__ = f"Values of {kind.key} that a calibration searches; what is left out is kept as it is."
    return made


#: The grid of every method, by its key. They are this module's own names too, so that they can be pickled.
GRIDS: Mapping[str, type[Grid]] = {key: _grid_type(kind) for key, kind in METHODS.items()}
globals().update({kind.__name__: kind for kind in GRIDS.values()})


def declared(key: str) -> tuple[Grid, ...]:
    """The grids that a method's file declares."""
    return tuple(GRIDS[key](**grid) for grid in METHODS[key].grids)


def combinations(key: str, grids: Sequence[Grid], present: Method | None) -> list[Method]:
    """Every setting of a method that its grids have.

    Args:
        key: The method's.
        grids: In the order in which they are searched.
        present: The method as the preset has it: what no grid lists is kept; None: the method's defaults.

    Raises:
        ValueError: A value that the method refuses, or a setting without a default that is not listed.
    """
    kind, settings = METHODS[key], []
    for grid in grids:
        for values in itertools.product(*grid.axes.values()):
            chosen = dict(zip(grid.axes, values, strict=True))
            try:
                settings.append(kind(**chosen) if present is None else replace(present, **chosen))  # type: ignore[type-var]
            except TypeError as error:
                raise ValueError(
                    f"the calibration of {key} cannot make {chosen}: {error}; list what is missing."
                ) from error
    return settings


def check_values(key: str, grids: Sequence[Grid]) -> None:
    """Refuse values that the method does not take. Settings without default that no grid lists are the preset's.

    Raises:
        ValueError: The method's own word on a value.
    """
    axes = [axis.name for axis in fields(GRIDS[key])]
    required = {name for name in axes if default_of(METHODS[key], name) is MISSING}
    for grid in grids:
        if required <= grid.axes.keys():
            combinations(key, [grid], None)


@lru_cache(maxsize=16384)
def grid_indices(key: str, grids: tuple[Grid, ...], settings: Method) -> Mapping[str, int]:
    """Where settings stand in the grid that fits them best: its number, and the position of every value.

    Values that the grid does not list stand at -1. Texts and yes-or-no settings tell kinds of a method apart, so they
    weigh more than any number does.
    """

    def fit(grid: Grid) -> tuple[int, int]:
        held = {name: getattr(settings, name) in values for name, values in grid.axes.items()}
        kinds = [name for name in held if isinstance(getattr(settings, name), bool | str)]
        return sum(held[name] for name in kinds), sum(held.values())

    if not grids:
        return {}
    number = max(range(len(grids)), key=lambda i: (*fit(grids[i]), -i))
    indices = {key: number}
    for name, values in grids[number].axes.items():
        value = getattr(settings, name)
        indices[f"{key}.{name}"] = values.index(value) if value in values else -1
    return indices


def steps_apart(key: str, grids: tuple[Grid, ...], one: Method | None, other: Method | None) -> int:
    """In how many respects two settings of a method differ: 0, 1, or 2 for several.

    A single respect is: with or without the method; the next value of one setting; another grid, all but its leading
    setting being equal.
    """
    if one is None or other is None:
        return int(one is not other)
    here, there = grid_indices(key, grids, one), grid_indices(key, grids, other)
    if not grids or here == there:
        return 0
    if here[key] != there[key]:
        pair = [(grids[here[key]], one), (grids[there[key]], other)]
        kept = [_beside_the_leading(grid, settings) for grid, settings in pair]
        return 1 if kept[0] == kept[1] else 2
    differing = [name for name in here if here[name] != there[name]]
    return 1 if len(differing) == 1 and abs(here[differing[0]] - there[differing[0]]) == 1 else 2


def _beside_the_leading(grid: Grid, settings: Method) -> dict[str, Any]:
    """The numbers of settings that a grid lists, less the leading one."""
    listed = {name: getattr(settings, name) for name in grid.axes if name != grid.leading}
    return {name: value for name, value in listed.items() if not isinstance(value, bool | str)}
