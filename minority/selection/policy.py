"""Policies: which verdicts an evaluated candidate must have before it may fill a quota. Filter names stand here alone.

    all         every candidate, in order
    clean       real-looking, new and of its label; nothing is asked about rarity
    moderate    clean, and farther from its neighbours than half of the real images are from theirs
    rare        clean, and rare: beyond `selection.rare_quantile` of the real images (the default)
    recognised  new, and taken for its label by the backbone's zero-shot classifier (scores.zero_shot)
    consistent  new, and among the half of its group that the discriminator finds most clearly of its label

The study of what synthetic images are worth to a classifier (docs/study.md) compares them: the rarest samples are the
least reliable ones.

Shapes: M candidates.
"""

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Policy = Literal["all", "clean", "moderate", "rare", "consistent", "recognised"]
POLICIES: tuple[Policy, ...] = get_args(Policy)

#: The filter's verdicts, in the order in which they are asked, and why a candidate without one is refused.
FILTERS = ("rare", "valid", "new", "label_kept")
REFUSALS = {
    "rare": "common",
    "valid": "not real-looking",
    "new": "copy of a training image",
    "label_kept": "label lost",
    "zero_shot_kept": "taken for another class by the backbone",
}
COMMON, UNCLEAR = REFUSALS["rare"], "label less clear than in half of its group"

_ASKED: dict[Policy, tuple[str, ...]] = {
    "all": (),
    "clean": ("valid", "new", "label_kept"),
    "moderate": ("knn_distance_quantile", "valid", "new", "label_kept"),
    "rare": FILTERS,
    "consistent": ("new", "label_margin"),
    "recognised": ("new", "zero_shot_kept"),
}
#: "moderate" wants a larger share than this of the real images to lie nearer to their neighbours.
_MODERATE = 0.5


def asked_columns(policy: Policy) -> tuple[str, ...]:
    """What a policy needs to know of every candidate: names of verdicts and scores."""
    return _ASKED[policy]


def refusals(
    policy: Policy,
    rows: Mapping[str, NDArray[np.generic]],
    groups: NDArray[np.int64],
    *,
    rounds: NDArray[np.int64] | None = None,
) -> list[str | None]:
    """Why the policy refuses each candidate; None where it may be chosen.

    Args:
        policy: The policy.
        rows: Its `asked_columns`, each (M,): verdicts as bool; `knn_distance_quantile` in [0, 1] among the real images;
            `label_margin` in [-1, 1], the discriminator's probability of the label less that of the likeliest other.
        groups: (M,) integers; "consistent" compares within one group.
        rounds: (M,) the round of each; "consistent" compares within one round, so that a later round changes nothing
            that an earlier one chose. None: all are of one.

    Returns:
        M reasons, that of the first thing asked that the candidate fails.

    Raises:
        ValueError: A column is missing or has no values.
    """
    reasons: list[str | None] = [None] * len(groups)
    for name in _ASKED[policy]:
        values = _column(rows, name, policy=policy)
        if name == "knn_distance_quantile":
            passed, reason = values.astype(np.float64) > _MODERATE, COMMON
        elif name == "label_margin":
            passed, reason = _clearer_half(values.astype(np.float64), groups, rounds), UNCLEAR
        else:
            passed, reason = values.astype(bool), REFUSALS[name]
        for i in np.flatnonzero(~passed):
            reasons[i] = reasons[i] or reason
    return reasons


def passed(
    policy: Policy,
    rows: Mapping[str, NDArray[np.generic]],
    groups: NDArray[np.int64],
    *,
    rounds: NDArray[np.int64] | None = None,
) -> NDArray[np.bool_]:
    """(M,) whether the policy lets each candidate through; arguments and errors as of `refusals`."""
    return np.array([reason is None for reason in refusals(policy, rows, groups, rounds=rounds)], dtype=bool)


def _column(rows: Mapping[str, NDArray[np.generic]], name: str, *, policy: Policy) -> NDArray[np.generic]:
    values = np.asarray(rows[name]) if name in rows else None
    if values is None or (name == "label_margin" and np.isnan(values.astype(np.float64)).any()):
        ways = {
            "label_margin": "with selection.held_out, which has a discriminator",
            "zero_shot_kept": "with scores.zero_shot, which asks the backbone",
        }
        how = ways.get(name, "first")
        raise ValueError(f"the policy {policy} needs {name} of every candidate; evaluate them {how}.")
    return values


def _clearer_half(
    margin: NDArray[np.float64], groups: NDArray[np.int64], rounds: NDArray[np.int64] | None
) -> NDArray[np.bool_]:
    """(M,) whether a margin reaches the median of its group and round."""
    batch = np.stack([np.zeros_like(groups) if rounds is None else rounds, groups], axis=1)
    passed = np.zeros(len(groups), dtype=bool)
    for key in np.unique(batch, axis=0):
        members = (batch == key).all(axis=1)
        passed[members] = margin[members] >= np.median(margin[members])
    return passed
