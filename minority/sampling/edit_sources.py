"""Which real image a sample is a variant of: drawn by the run's seed and the sample's index alone.

Shapes: N real images.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

#: The real images that a sample of a group may vary: those of the group; those of the other groups of its label; or
#: those of all other groups, whatever their label.
Sources = Literal["group", "label", "other_groups"]

_SOURCES = 0xED17  # keeps the draw of sources apart from other draws by seed and index


def choose_sources(
    seed: int,
    indices: Sequence[int],
    groups: Sequence[int],
    *,
    real_groups: NDArray[np.int64],
    group_labels: Sequence[int],
    among: Sources = "group",
    has_mask: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """The real image that each sample varies.

    Args:
        seed: The run's seed.
        indices: Sample indices.
        groups: The group of each sample.
        real_groups: (N,) the groups of the real images.
        group_labels: The label of every group.
        among: Whose images.
        has_mask: (N,) which images may be varied, where only those with a mask may; None: all.

    Returns:
        Positions among the real images, one a sample.

    Raises:
        ValueError: For a sample that no real image may be varied for.

    Example:
        >>> real_groups = np.array([0, 0, 1, 2])  # groups 0 and 1 are of label 0, group 2 is of label 1
        >>> choose_sources(0, [5], [0], real_groups=real_groups, group_labels=[0, 0, 1], among="label")
        array([2])
    """
    allowed = np.ones(len(real_groups), dtype=bool) if has_mask is None else has_mask
    labels, chosen = np.asarray(group_labels), []
    for index, group in zip(indices, groups, strict=True):
        candidates = {
            "group": real_groups == group,
            "label": (labels[real_groups] == labels[group]) & (real_groups != group),
            "other_groups": real_groups != group,
        }[among]
        positions = np.flatnonzero(candidates & allowed)
        if len(positions) == 0:
            raise ValueError(_none_left(group, int(labels[group]), among=among, masked=has_mask is not None))
        chosen.append(int(positions[np.random.default_rng([seed, index, _SOURCES]).integers(len(positions))]))
    return np.array(chosen, dtype=np.int64)


def _none_left(group: int, label: int, *, among: Sources, masked: bool) -> str:
    kind = "real image with a mask" if masked else "real image"
    remedy = "give some of them masks, or leave edit.masked out" if masked else None
    if among == "group":
        return f"group {group} has no {kind} that could be varied; {remedy or 'leave edit out or add some'}."
    whose = f"label {label} has no {kind} outside group {group}"
    if among == "other_groups":
        whose = f"there is no {kind} outside group {group}"
    return f"{whose}; {remedy or 'set edit.sources to group'}."
