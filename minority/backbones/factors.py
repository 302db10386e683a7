"""Label and attributes as separate conditions of one U-Net, in a folder that bare diffusers opens.

A UNet2DModel has one table of class embeddings, and a label is a row of it. Here every combination of values has a row,
also those in which some conditions are left out:

    row = label + (K + 1) (a_1 + (K_1 + 1) (a_2 + ...))
    label in 0 ... K, K where it is left out; a_i in 0 ... K_i, 0 where it is left out

So the rows 0 ... K - 1 are the labels alone and row K tells nothing, as in a class-conditional U-Net with one row for
"no label"; further blocks of K + 1 rows say the same with attributes told. While the U-Net is trained, a row is the sum
of one embedding a condition (`FactorEmbedding`): what it learns of a value holds in every combination, also in those
that no training image shows. The saved table holds the sums.

Shapes: N samples, F conditions, E numbers an embedding.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

#: The condition that is always told first.
LABEL = "label"
#: Stands for a condition that is left out.
LEFT_OUT = -1

Rows = TypeVar("Rows", Tensor, NDArray[np.int64])


@dataclass(frozen=True)
class Factor:
    """One condition.

    Attributes:
        name: "label", or an attribute's.
        values: Its values in the order of their numbers.
    """

    name: str
    values: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.values or len(set(self.values)) != len(self.values):
            raise ValueError(f"the condition {self.name} needs distinct values, at least one, got {self.values}.")


@dataclass(frozen=True)
class Factors:
    """The conditions of a backbone: the label, then attributes.

    Attributes:
        factors: Label first, at least one attribute.
    """

    factors: tuple[Factor, ...]

    def __post_init__(self) -> None:
        names = [factor.name for factor in self.factors]
        if len(names) < 2 or names[0] != LABEL or len(set(names)) != len(names):
            raise ValueError(f"conditions must be the label first and then other attributes, got {', '.join(names)}.")

    @property
    def names(self) -> tuple[str, ...]:
        """F names."""
        return tuple(factor.name for factor in self.factors)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows that each condition has on its own: its values, and one for being left out."""
        return tuple(len(factor.values) + 1 for factor in self.factors)

    @property
    def num_rows(self) -> int:
        """Rows of the table of class embeddings."""
        return int(np.prod(self.sizes))

    @property
    def nothing(self) -> int:
        """The row that tells nothing."""
        return len(self.factors[0].values)

    def digits(self, rows: Rows) -> list[Rows]:
        """Of every condition the row (N,) of its own table that (N,) rows stand for."""
        remainders, rest = [], rows
        for size in self.sizes:
            remainders.append(rest % size)
            rest = rest // size
        return remainders

    def row_of(self, digits: Sequence[Rows]) -> Rows:
        """The (N,) rows that digits of every condition, each (N,), stand for."""
        row = digits[-1]
        for digit, size in zip(reversed(digits[:-1]), reversed(self.sizes[:-1]), strict=True):
            row = row * size + digit
        return row

    def rows(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows (N,) of (N, F) values, LEFT_OUT where a condition is not told.

        Raises:
            ValueError: A value is none of its condition's.
        """
        values = np.asarray(values, dtype=np.int64)
        digits = []
        for position, (factor, size) in enumerate(zip(self.factors, self.sizes, strict=True)):
            column = values[:, position]
            if len(column) and not LEFT_OUT <= column.min() <= column.max() < size - 1:
                raise ValueError(f"{factor.name} must lie in 0 ... {size - 2}, got {column.min()} ... {column.max()}.")
            digits.append(np.where(column == LEFT_OUT, self.nothing, column) if position == 0 else column + 1)
        return self.row_of(digits)

    def values(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The (N, F) values of (N,) rows, LEFT_OUT where a condition is not told."""
        label, *attributes = self.digits(np.asarray(rows, dtype=np.int64))
        return np.stack(
            [np.where(label == self.nothing, LEFT_OUT, label), *(digit - 1 for digit in attributes)], axis=1
        )

    def without(self, rows: Tensor, left_out: Tensor) -> Tensor:
        """The rows (N,) with the conditions left out that (F, N) bool `left_out` says."""
        digits = self.digits(rows)
        empty = [self.nothing, *([0] * (len(digits) - 1))]
        return self.row_of(
            [torch.where(out, none, digit) for digit, none, out in zip(digits, empty, left_out, strict=True)]
        )

    def alone(self, rows: Tensor, position: int) -> Tensor:
        """The rows (N,) that tell of (N,) rows the condition at `place` and no other."""
        others = torch.ones((len(self.factors), len(rows)), dtype=torch.bool, device=rows.device)
        others[position] = False
        return self.without(rows, others)

    def to_json(self) -> list[dict[str, Any]]:
        """As minority.json has it."""
        return [{"name": factor.name, "values": list(factor.values)} for factor in self.factors]

    @classmethod
    def from_json(cls, content: Sequence[Mapping[str, Any]]) -> "Factors":
        """What `to_json` gave.

        Raises:
            ValueError: It is none.
        """
        try:
            return cls(tuple(Factor(str(entry["name"]), tuple(map(str, entry["values"]))) for entry in content))
        except (KeyError, TypeError) as error:
            raise ValueError(f"conditions must be a list of name and values, got {content!r:.80}.") from error


class FactorEmbedding(nn.Module):
    """Class embeddings of a U-Net in training: the sum of one embedding a condition.

    Args:
        factors: The conditions.
        dimensions: E.
    """

    def __init__(self, factors: Factors, dimensions: int) -> None:
        super().__init__()
        self.factors = factors
        self.tables = nn.ModuleList(nn.Embedding(size, dimensions) for size in factors.sizes)

    def forward(self, rows: Tensor) -> Tensor:
        """(N, E) embeddings of (N,) rows."""
        parts = [table(digit) for table, digit in zip(self.tables, self.factors.digits(rows), strict=True)]
        return torch.stack(parts).sum(dim=0)

    @torch.no_grad()
    def joint(self) -> nn.Embedding:
        """The same as one table with a row for every combination."""
        device = next(self.parameters()).device
        weight = self(torch.arange(self.factors.num_rows, device=device))
        return nn.Embedding.from_pretrained(weight, freeze=False)


def with_factors(unet: Any, factors: Factors) -> Any:
    """The U-Net, changed in place so that it learns its class embeddings condition by condition."""
    dimensions = unet.class_embedding.embedding_dim
    unet.class_embedding = FactorEmbedding(factors, dimensions)
    return unet


def with_joint_table(unet: Any) -> Any:
    """A U-Net as diffusers knows it: a copy with one table of class embeddings, or the same where it has that."""
    if not isinstance(unet.class_embedding, FactorEmbedding):
        return unet
    plain = copy.deepcopy(unet)
    plain.class_embedding = plain.class_embedding.joint()
    return plain
