"""Particle groups of chains that may replace one another: completing them, and following branches back.

Shapes: B samples.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def whole_particle_groups(
    indices: Sequence[int], labels: Sequence[int] | None, *, particle_group: int
) -> tuple[list[int], list[int] | None, list[int]]:
    """Complete a list of samples to whole particle groups.

    Sample i belongs to the particle group of the indices i // particle_group * particle_group onwards, each drawn with
    i's label.

    Args:
        indices: Sample indices, in any order.
        labels: One a sample, or None.
        particle_group: Chains a particle group.

    Returns:
        Indices and labels of all members, particle group by particle group, and for every requested sample its position
        among them.
    """
    keys = [(index // particle_group, None if labels is None else labels[i]) for i, index in enumerate(indices)]
    order = list(dict.fromkeys(keys))
    rank = {key: position for position, key in enumerate(order)}
    members = [first * particle_group + j for first, _ in order for j in range(particle_group)]
    member_labels = (
        None if labels is None else [label for _, label in order for _ in range(particle_group) if label is not None]
    )
    positions = [rank[key] * particle_group + index % particle_group for key, index in zip(keys, indices, strict=True)]
    return members, member_labels, positions


def root_ancestors(parents: Sequence[Tensor | None], batch: int) -> Tensor:
    """Follow branches back to the chain that each sample descends from at the first point, (B,) int64.

    Args:
        parents: `Arrival.parents` of every step, in the order of the steps.
        batch: B.
    """
    origin = torch.arange(batch)
    for choice in parents:
        if choice is not None:
            origin = origin[choice.cpu()]
    return origin
