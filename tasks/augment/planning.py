"""Planning: which samples are drawn, for which group, in which work unit.

A plan is a function of the config, the real data and the verdicts on earlier rounds, so a run that is killed and
started again plans the same units. In memory and in the store it is two numbers a sample (datasets/runs/plans.py); a
task is told the names of its units and nothing more.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from tasks.config.sections import PlanConfig
from tasks.inputs.real_data import RealData

#: Most task runs of a stage where the config does not say. Each costs Prefect's database some 25 kB.
MOST_TASKS = 128
#: Candidates by which a group with few or no real images is let through or refused (plan.gate).
GATE_CANDIDATES = 20
#: Candidates that a pilot round (plan.pilot) has at least, as far as the budget goes.
PILOT_CANDIDATES = 64


@dataclass(frozen=True, kw_only=True)
class UnitPlan:
    """A fixed list of samples that are made together: the grain of retry, resume and distribution.

    Attributes:
        unit: Its name in the run's store.
        sampler: "minority", "plain" (the baseline) or "real" (real images, which are only scored).
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


@dataclass(frozen=True, kw_only=True, eq=False)
class RoundPlan:
    """The units of one sampler in one round: as a sequence of `UnitPlan`, each made when it is asked for.

    Attributes:
        sampler: "minority", "plain" (the baseline) or "real".
        round: Number of the round, from 0.
        unit_size: Samples a unit; the last has what is left.
        indices: (N,) sample indices.
        groups: (N,) the group of each.
    """

    sampler: str
    round: int
    unit_size: int
    indices: NDArray[np.int64]
    groups: NDArray[np.int32]

    @property
    def name(self) -> str:
        """Its name in the run's store, with which the names of its units begin."""
        return plan_name(self.sampler, self.round)

    @property
    def num_samples(self) -> int:
        """Samples in all units."""
        return len(self.indices)

    def __len__(self) -> int:
        return math.ceil(len(self.indices) / self.unit_size)

    def __getitem__(self, number: int) -> UnitPlan:
        if not 0 <= number < len(self):
            raise IndexError(f"{self.name} has {len(self)} units, asked for number {number}.")
        members = slice(number * self.unit_size, (number + 1) * self.unit_size)
        return UnitPlan(
            unit=_unit_name(self.name, number),
            sampler=self.sampler,
            round=self.round,
            indices=tuple(self.indices[members].tolist()),
            groups=tuple(self.groups[members].tolist()),
        )

    def __iter__(self) -> Iterator[UnitPlan]:
        return (self[number] for number in range(len(self)))


@dataclass(frozen=True, kw_only=True)
class UnitBatch:
    """Neighbouring units of one plan that one task run makes, one after the other. All that a task is told of its work.

    Attributes:
        plan: The plan's name in the run's store.
        first: Number of the first unit.
        count: How many units.
        num_samples: Samples in all of them.
    """

    plan: str
    first: int
    count: int
    num_samples: int

    @property
    def name(self) -> str:
        """The unit's name, or the first one's and the last one's number."""
        first = _unit_name(self.plan, self.first)
        return first if self.count == 1 else f"{first}..{self.first + self.count - 1:05d}"


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
    quota, have = group_quota(real, config), Counter(real.train.groups)
    filled = set(real.groups if isinstance(config.groups, str) else config.groups)
    return [max(0, quota - have[group]) if group in filled else 0 for group in real.groups]


def group_quota(real: RealData, config: PlanConfig) -> int:
    """Images wanted in every group, real and synthetic together."""
    if config.quota is not None:
        return config.quota
    return max(Counter(real.train.groups).values())


def plan_round(
    config: PlanConfig,
    tallies: Sequence[Tally],
    *,
    round_number: int,
    first_index: int,
    wanted: Sequence[int],
    particle_group: int = 1,
    sparse: Sequence[bool] = (),
) -> RoundPlan | None:
    """Plan one round of candidates.

    Args:
        config: Sizes and budgets.
        tallies: How far every group is.
        round_number: 0, 1, ...
        first_index: The first sample index that is free.
        wanted: Synthetic images wanted for every group in the whole run; decides the candidate budget.
        particle_group: Candidates that are drawn together (`SamplerSettings.particle_group`): each particle group is of
            one group, and lies whole in one unit. `first_index` must be a multiple of it, as it is after whole particle
            groups.
        sparse: Which groups have so few real images that their first round decides whether they are drawn at all: it
            then has `GATE_CANDIDATES` of each at least, as far as the budget goes; empty: none.

    Returns:
        The units; None where quotas are full, the rounds are over, the budget is spent, or a pilot kept nothing.
    """
    if round_number >= config.max_rounds or (round_number and pilot_failed(config, tallies)):
        return None
    budget = int(config.candidates_per_image * sum(wanted)) - sum(tally.candidates for tally in tallies)
    if config.pilot and round_number == 0:
        larger = max(1.0, PILOT_CANDIDATES / max(1, sum(wanted)))
        candidates = [larger * tally.missing for tally in tallies]
    else:
        candidates = [tally.missing / _expected_yield(tally, config) for tally in tallies]
    particle_groups = [math.ceil(count / particle_group) for count in candidates]
    if round_number == 0 and any(sparse):
        least = math.ceil(GATE_CANDIDATES / particle_group)
        particle_groups = [
            max(count, least) if few and count else count for count, few in zip(particle_groups, sparse, strict=True)
        ]
    if sum(particle_groups) * particle_group > budget:
        particle_groups = [
            count * max(0, budget) // (sum(particle_groups) * particle_group) for count in particle_groups
        ]
    if sum(particle_groups) == 0:
        return None
    return RoundPlan(
        sampler="minority",
        round=round_number,
        unit_size=math.ceil(config.unit_size / particle_group) * particle_group,
        indices=np.arange(first_index, first_index + sum(particle_groups) * particle_group),
        groups=np.repeat(_interleave(particle_groups), particle_group),
    )


def pilot_failed(config: PlanConfig, tallies: Sequence[Tally]) -> bool:
    """Whether a pilot was drawn and nothing of it passed: more of the same would be refused, too."""
    return config.pilot and any(tally.candidates for tally in tallies) and not any(tally.accepted for tally in tallies)


def plan_baseline(config: PlanConfig, first_round: RoundPlan, wanted: Sequence[int]) -> RoundPlan:
    """Plain samples that share index, and so noise and label, with candidates of the first round.

    Each group gets as many as it wants images, so that they could fill its quota unselected.
    """
    of_group = [np.flatnonzero(first_round.groups == group)[:count] for group, count in enumerate(wanted)]
    chosen = np.sort(np.concatenate(of_group))
    return RoundPlan(
        sampler="plain",
        round=0,
        unit_size=config.unit_size,
        indices=first_round.indices[chosen],
        groups=first_round.groups[chosen],
    )


def plan_real(config: PlanConfig, real: RealData) -> RoundPlan:
    """The real training images, to be scored like the others."""
    groups = real.train_groups.astype(np.int32)
    return RoundPlan(sampler="real", round=0, unit_size=config.unit_size, indices=np.arange(len(groups)), groups=groups)


def batches(plan: RoundPlan, *, units_a_task: int | None) -> list[UnitBatch]:
    """Cut a plan into the work of task runs.

    Args:
        plan: The round.
        units_a_task: Units in each; None: as few as keep the stage within `MOST_TASKS` task runs.
    """
    size = units_a_task or math.ceil(len(plan) / MOST_TASKS)
    return [
        UnitBatch(
            plan=plan.name,
            first=first,
            count=min(size, len(plan) - first),
            num_samples=min(size * plan.unit_size, plan.num_samples - first * plan.unit_size),
        )
        for first in range(0, len(plan), size)
    ]


def plan_name(sampler: str, round_number: int) -> str:
    """Name of the plan of a sampler's round."""
    return f"{sampler}-{round_number:02d}"


def tally(wanted: Sequence[int], rows: Mapping[str, Sequence[object]], groups: Sequence[str]) -> list[Tally]:
    """How far every group is.

    Args:
        wanted: Synthetic images wanted for every group.
        rows: The candidates' columns "group", "passed" and "kept".
        groups: Names of the groups.
    """
    candidates, kept, accepted = (
        Counter(compress(rows["group"], chosen))
        for chosen in ([True] * len(rows["group"]), rows["kept"], rows["passed"])
    )
    return [
        Tally(missing=count - kept[group], candidates=candidates[group], accepted=accepted[group])
        for group, count in zip(groups, wanted, strict=True)
    ]


def _expected_yield(tally: Tally, config: PlanConfig) -> float:
    # Ten imagined candidates at the configured yield keep an unlucky first round from asking for thousands.
    prior = 10
    return (tally.accepted + prior * config.expected_yield) / (tally.candidates + prior)


def _interleave(counts: Sequence[int]) -> NDArray[np.int32]:
    """Groups in an order in which every stretch has them in proportion, so that every unit is mixed."""
    groups = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    fractions = np.concatenate([(np.arange(count) + 0.5) / max(1, count) for count in counts])
    ordered: NDArray[np.int32] = groups[np.lexsort((groups, fractions))]
    return ordered


def _unit_name(plan: str, number: int) -> str:
    return f"{plan}-{number:05d}"
