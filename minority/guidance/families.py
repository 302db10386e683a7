"""Families of chains that may replace one another: completing them, and following branches back.

Shapes: B samples.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def whole_families(
    indices: Sequence[int], labels: Sequence[int] | None, *, family: int
) -> tuple[list[int], list[int] | None, list[int]]:
    """Complete a list of samples to whole families.

    Sample i belongs to the family of the indices i // family * family onwards, each drawn with i's label.

    Args:
        indices: Sample indices, in any order.
        labels: One a sample, or None.
        family: Chains a family.

    Returns:
        Indices and labels of all members, family by family, and for every requested sample its position among them.
    """
    keys = [(index // family, None if labels is None else labels[i]) for i, index in enumerate(indices)]
    order = list(dict.fromkeys(keys))
    rank = {key: position for position, key in enumerate(order)}
    members = [first * family + j for first, _ in order for j in range(family)]
    member_labels = (
        None if labels is None else [label for _, label in order for _ in range(family) if label is not None]
    )
    positions = [rank[key] * family + index % family for key, index in zip(keys, indices, strict=True)]
    return members, member_labels, positions


def root_ancestors(parents: Sequence[Tensor | None], batch: int) -> Tensor:
    """Follow branches back to the chain that each sample descends from at the first point, (B,) int64.

    Args:
        parents: `Arrival.parents` of every step, in the order walked.
        batch: B.
    """
    origin = torch.arange(batch)
    for choice in parents:
        if choice is not None:
            origin = origin[choice.cpu()]
    return origin
