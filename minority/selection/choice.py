"""The choice among evaluated candidates: up to a quota, in order or as different as can be, with a reason for refusals.

Shapes: M candidates, D features.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minority.neighbours.pairwise import Features, nearest
from minority.selection.diversity import k_centre
from minority.selection.policy import Policy, refusals

KEPT = "kept"
LOOK_ALIKE, QUOTA_FULL, REFUSED = "look-alike of a kept sample", "quota full", "refused in review"


@dataclass(frozen=True, eq=False)
class Spread:
    """What is needed to choose samples that differ.

    Attributes:
        features: (M, D) of the candidates.
        rounds: (M,) the round of each; what earlier rounds keep does not change when a later one is added.
        spacing: A candidate this near to a kept one of its group, or nearer, is a look-alike; 0 keeps all but copies.
    """

    features: Features
    rounds: NDArray[np.int64]
    spacing: float = 0.0


@dataclass(frozen=True, eq=False)
class Reviewed:
    """What people said of the candidates.

    Attributes:
        refused: (M,) whether a candidate may not be chosen, whatever the policy says.
        stages: (M,) integers; candidates of a lower stage are chosen before those of a higher one.
    """

    refused: NDArray[np.bool_]
    stages: NDArray[np.int64]


def choose(
    rows: Mapping[str, NDArray[np.generic]],
    groups: NDArray[np.int64],
    *,
    quotas: Mapping[int, int],
    policy: Policy = "rare",
    rounds: NDArray[np.int64] | None = None,
    spread: Spread | None = None,
    reviewed: Reviewed | None = None,
) -> tuple[NDArray[np.bool_], list[str]]:
    """Keep what the policy lets through until the quota of its group is full.

    Args:
        rows: What the policy asks of every candidate (`policy.asked_columns`), each (M,).
        groups: (M,) groups of the candidates, or labels where groups are labels.
        quotas: How many may be kept of each group.
        policy: Which verdicts a kept candidate must have.
        rounds: (M,) the round of each, for policies that compare within one; None: all are of one.
        spread: None keeps them in the order given. Otherwise, round by round, the candidate farthest from all kept ones
            of its group comes first.
        reviewed: What people said; None: nobody looked. The policy compares all candidates, refused ones too.

    Returns:
        (M,) whether a candidate is kept, and for each one "kept" or the first filter that refused it.

    Raises:
        ValueError: Something that the policy asks is not known.
    """
    reasons = [reason or QUOTA_FULL for reason in refusals(policy, rows, groups, rounds=rounds)]
    if reviewed is not None:
        refused = reviewed.refused.tolist()
        reasons = [
            REFUSED if out and reason == QUOTA_FULL else reason for out, reason in zip(refused, reasons, strict=True)
        ]
    passed = np.array([reason == QUOTA_FULL for reason in reasons], dtype=bool)
    stages = np.zeros(len(groups), dtype=np.int64) if reviewed is None else reviewed.stages
    for group in np.unique(groups).tolist():
        members = np.flatnonzero(passed & (groups == group))
        quota = quotas.get(group, 0)
        if spread is None:
            members = members[np.argsort(stages[members], kind="stable")]
            chosen, alike = members[:quota].tolist(), list[int]()
        else:
            chosen, alike = _choose_spread(members, spread, quota=quota, stages=stages)
        for i in chosen:
            reasons[i] = KEPT
        for i in alike:
            reasons[i] = LOOK_ALIKE
    return np.array([reason == KEPT for reason in reasons], dtype=bool), reasons


def _choose_spread(
    members: NDArray[np.int64], spread: Spread, *, quota: int, stages: NDArray[np.int64]
) -> tuple[list[int], list[int]]:
    """Of the candidates `members` the chosen ones, and those that resemble a chosen one."""
    kept: list[int] = []
    alike: list[int] = []
    turns = np.stack([stages, spread.rounds], axis=1)
    for turn in np.unique(turns[members], axis=0):
        of_turn = members[(turns[members] == turn).all(axis=1)]
        # Farthest first: from the first look-alike on, all others resemble a kept one as well.
        features, before = spread.features[of_turn], spread.features[kept]
        kept += of_turn[k_centre(features, quota - len(kept), kept=before, spacing=spread.spacing)].tolist()
        rest = np.setdiff1d(of_turn, kept)
        if kept and len(rest):
            alike += rest[_gaps(rest, kept, spread.features) <= spread.spacing].tolist()
    return kept, alike


def _gaps(candidates: NDArray[np.int64], kept: list[int], features: Features) -> NDArray[np.float64]:
    """Distance of each candidate to the nearest kept one."""
    return nearest(features[candidates], features[kept], k=1)[0][:, 0]
