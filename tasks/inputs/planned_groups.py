"""The groups that a run fills: those with real images, or also combinations of label and attributes without any.

Readers name groups "<label column>=<class>,<column>=<value>,...". What can be combined is read from those names: every
class with every value that an attribute has in the training split.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

from minority.backbones.factors import LEFT_OUT, Factors
from tasks.config.runs import AugmentConfig
from tasks.errors import InputError
from tasks.inputs.real_data import RealData, load_real_data

#: What group names say where a value is missing.
UNKNOWN = "unknown"


def values_of(group: str) -> dict[str, str]:
    """Column -> value of a group's name, the label column first; empty where the name is no such list."""
    pairs = [part.partition("=") for part in group.split(",")]
    return {column: value for column, _, value in pairs} if all(sign for _, sign, _ in pairs) else {}


@dataclass(frozen=True, eq=False)
class GroupValues:
    """What the groups of a set are combinations of.

    Attributes:
        real: The real images.
    """

    real: RealData

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The label column and the attributes, as every group has them; empty where groups are the classes alone."""
        tuples = [tuple(values_of(group)) for group in self.real.groups]
        return tuples[0] if len(set(tuples)) == 1 and len(tuples[0]) > 1 else ()

    @cached_property
    def attributes(self) -> Mapping[str, tuple[str, ...]]:
        """Attribute -> the values that it has in the training split, sorted; missing ones are none."""
        present = [values_of(group) for group in dict.fromkeys(self.real.train.groups)]
        return {
            column: tuple(sorted({values[column] for values in present} - {UNKNOWN})) for column in self.columns[1:]
        }

    @cached_property
    def labels(self) -> Mapping[str, int]:
        """How a class is written in group names -> its label."""
        pairs = zip(self.real.train.groups, self.real.train.labels.tolist(), strict=True)
        return (
            {values_of(group)[self.columns[0]]: label for group, label in dict(pairs).items()} if self.columns else {}
        )

    def all(self) -> list[str]:
        """Every combination of a class with values of the attributes, those of one label together."""
        words = sorted(self.labels, key=self.labels.__getitem__)
        choices = product(words, *self.attributes.values())
        return [",".join(map("=".join, zip(self.columns, choice, strict=True))) for choice in choices]

    def label_of(self, group: str) -> int:
        """The label of a group of `all`."""
        return self.labels[values_of(group)[self.columns[0]]]

    def numbers(self, groups: Sequence[str]) -> NDArray[np.int64]:
        """(N, F) the label and the number of every attribute's value, -1 where it is missing."""
        table = np.full((len(groups), len(self.columns)), LEFT_OUT, dtype=np.int64)
        for row, group in enumerate(groups):
            values = values_of(group)
            table[row, 0] = self.labels[values[self.columns[0]]]
            for column_index, (column, known) in enumerate(self.attributes.items(), start=1):
                if values[column] in known:
                    table[row, column_index] = known.index(values[column])
        return table

    def rows(self, factors: Factors) -> list[int]:
        """What a backbone with separate conditions is told of every group of the set.

        Raises:
            InputError: The backbone has a condition that the groups have not, other classes, or not all values.
        """
        names = factors.names[1:]
        strangers = [name for name in names if name not in self.attributes]
        if strangers:
            raise InputError(
                f"the backbone has the condition {strangers[0]}, the groups of the set are made of "
                f"{', '.join(self.columns) or 'classes alone'}; name that column in the dataset's groups."
            )
        classes = tuple(self.real.train.class_names)
        if factors.factors[0].values != classes:
            raise InputError(
                f"the backbone's labels are {', '.join(factors.factors[0].values)!r:.200}, the set's "
                f"{', '.join(classes)!r:.200}; bring the set's classes into that order (dataset.table.classes)."
            )
        values = np.full((len(self.real.groups), len(factors.names)), LEFT_OUT, dtype=np.int64)
        values[:, 0] = self.real.group_labels
        for row, group in enumerate(self.real.groups):
            of_group = values_of(group)
            for position, factor in enumerate(factors.factors[1:], start=1):
                if of_group[factor.name] in factor.values:
                    values[row, position] = factor.values.index(of_group[factor.name])
                elif of_group[factor.name] != UNKNOWN:
                    raise InputError(
                        f"group {group!r} has the {factor.name} {of_group[factor.name]!r}, the backbone knows "
                        f"{', '.join(factor.values)}; train one on all of them, or leave the group out."
                    )
        rows: list[int] = factors.rows(values).tolist()
        return rows


def planned_real_data(config: AugmentConfig) -> RealData:
    """The real images of a run, with the groups that its plan fills, those without any real image among them.

    Raises:
        InputError: The images cannot be read, or the plan names a group that cannot be.
    """
    real, asked = load_real_data(config.dataset), config.plan.groups
    if asked == "observed":
        return real
    values = GroupValues(real)
    if not values.columns:
        raise InputError(
            f"plan.groups is {asked if isinstance(asked, str) else ', '.join(asked)!r}, but the groups of "
            f"{real.train.name} are its classes alone; name attributes (dataset.table.groups), or set it to observed."
        )
    possible = values.all()
    for group in () if isinstance(asked, str) else asked:
        if group not in possible and group not in real.groups:
            raise InputError(
                f"plan.groups names {group!r}, which is no combination of the set; groups are written like "
                f"{possible[0]!r}, with {_listed(values.attributes)}."
            )
    wanted = possible if isinstance(asked, str) else asked
    absent = [group for group in dict.fromkeys(wanted) if group not in real.groups]
    label_of = dict(zip(real.groups, real.group_labels, strict=True)) | {g: values.label_of(g) for g in absent}
    return replace(
        real,
        groups=sorted(label_of, key=lambda group: (label_of[group], group)),
        absent={group: label_of[group] for group in absent},
    )


def _listed(attributes: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{name}: {', '.join(known)}" for name, known in attributes.items())


def sparse_groups(real: RealData, *, neighbours: int) -> list[bool]:
    """Which groups have fewer real images than neighbours are counted, so that no neighbour can evaluate them."""
    have = Counter(real.train.groups)
    return [have[group] < neighbours for group in real.groups]
