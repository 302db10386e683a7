"""Planning: which samples are drawn, for which group, in which work unit.

A plan is a function of the config, the real data and the verdicts on earlier rounds, so a run that is killed and
started again plans the same units.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.config import PlanConfig
from tasks.real_data import RealData


@dataclass(frozen=True, kw_only=True)
class UnitPlan:
    """A fixed list of samples that are made together: the grain of retry, resume and distribution.

    Attributes:
        unit: Its name in the run's store.
        sampler: "minority", "plain" (the baseline) or "none" (real images that are only scored).
        round: The round it belongs to.
        indices: Sample indices; for real images their positions in the training split.
        groups: The group each sample is drawn for; for real images the group they have.
    """

    unit: str
    sampler: str
    round: int
    indices: tuple[int, ...]
    groups: tuple[int, ...]

    @property
    def num_samples(self) -> int:
        """Samples in the unit."""
        return len(self.indices)


@dataclass(frozen=True)
class Tally:
    """How far one group is.

    Attributes:
        missing: Images still wanted.
        candidates: Candidates drawn for it so far.
        accepted: Those that every filter let through.
    """

    missing: int
    candidates: int = 0
    accepted: int = 0


def quotas(real: RealData, config: PlanConfig) -> list[int]:
    """Synthetic images wanted for every group, so that groups come out equally large."""
    quota = group_quota(real, config)
    return [max(0, quota - real.train.groups.count(group)) for group in real.groups]


def group_quota(real: RealData, config: PlanConfig) -> int:
    """Images wanted in every group, real and synthetic together."""
    if config.quota is not None:
        return config.quota
    return max(real.train.groups.count(group) for group in real.groups)


def plan_round(
    config: PlanConfig, tallies: Sequence[Tally], *, round_number: int, first_index: int, wanted: Sequence[int]
) -> list[UnitPlan]:
    """Plan one round of candidates.

    Args:
        config: Sizes and budgets.
        tallies: How far every group is.
        round_number: 0, 1, ...
        first_index: The first sample index that is free.
        wanted: Synthetic images wanted for every group in the whole run; decides the candidate budget.

    Returns:
        The units; none where quotas are full, the rounds are over or the budget is spent.
    """
    if round_number >= config.max_rounds:
        return []
    budget = int(config.candidates_per_image * sum(wanted)) - sum(tally.candidates for tally in tallies)
    asked = [math.ceil(tally.missing / _expected_yield(tally, config)) for tally in tallies]
    if sum(asked) > budget:
        asked = [count * max(0, budget) // sum(asked) for count in asked]
    groups = _interleave(asked)
    return _units(
        "minority",
        groups,
        config=config,
        round_number=round_number,
        indices=range(first_index, first_index + len(groups)),
    )


def plan_baseline(config: PlanConfig, first_round: Sequence[UnitPlan], wanted: Sequence[int]) -> list[UnitPlan]:
    """Plain samples that share index, and so noise and label, with candidates of the first round.

    Each group gets as many as it wants images, so that they could fill its quota unselected.
    """
    left = list(wanted)
    chosen: list[tuple[int, int]] = []
    for unit in first_round:
        for index, group in zip(unit.indices, unit.groups, strict=True):
            if left[group] > 0:
                left[group] -= 1
                chosen.append((index, group))
    return _units(
        "plain", [group for _, group in chosen], config=config, round_number=0, indices=[index for index, _ in chosen]
    )


def plan_real(config: PlanConfig, real: RealData) -> list[UnitPlan]:
    """The real training images, to be scored like the others."""
    groups = real.train_groups.tolist()
    return _units("none", groups, config=config, round_number=0, indices=range(len(groups)))


def tally(wanted: Sequence[int], rows: Mapping[str, Sequence[object]], groups: Sequence[str]) -> list[Tally]:
    """How far every group is.

    Args:
        wanted: Synthetic images wanted for every group.
        rows: The candidates' columns "group", "passed" and "kept".
        groups: Names of the groups.
    """
    tallies = []
    for group, count in zip(groups, wanted, strict=True):
        mine = [i for i, name in enumerate(rows["group"]) if name == group]
        tallies.append(
            Tally(
                missing=count - sum(bool(rows["kept"][i]) for i in mine),
                candidates=len(mine),
                accepted=sum(bool(rows["passed"][i]) for i in mine),
            )
        )
    return tallies


def _expected_yield(tally: Tally, config: PlanConfig) -> float:
    # Ten imagined candidates at the configured yield keep an unlucky first round from asking for thousands.
    prior = 10
    return (tally.accepted + prior * config.expected_yield) / (tally.candidates + prior)


def _interleave(counts: Sequence[int]) -> list[int]:
    """Groups in an order in which every stretch has them in proportion, so that every unit is mixed."""
    places = [((i + 0.5) / count, group) for group, count in enumerate(counts) for i in range(count)]
    return [group for _, group in sorted(places)]


def _units(
    sampler: str, groups: Sequence[int], *, config: PlanConfig, round_number: int, indices: Sequence[int]
) -> list[UnitPlan]:
    units: list[UnitPlan] = []
    for start in range(0, len(groups), config.unit_size):
        stop = min(start + config.unit_size, len(groups))
        units.append(
            UnitPlan(
                unit=f"{'real' if sampler == 'none' else sampler}-{round_number:02d}-{len(units):05d}",
                sampler=sampler,
                round=round_number,
                indices=tuple(indices[start:stop]),
                groups=tuple(groups[start:stop]),
            )
        )
    return units
