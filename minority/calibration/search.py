"""Finding the sampler settings that keep the most samples: successive halving with exploration.

All candidates start with few samples; rung by rung the worse part is dropped and the better part draws more, so that
most of the budget goes to the few that are hard to tell apart (Jamieson & Talwalkar, AISTATS 2016). The first rung is a
thin, even sample of the space; from then on a share of every rung's places goes to untried neighbours of the best
settings, which first draw what the others drew before them. Candidates share their sample indices, and so noise and
labels, which makes their differences smaller than those of independent draws.

Places are shared by two objectives (minority/calibration/outcome.py): whoever looks for the most samples per
evaluation alone drops every slow setting before its yield is known. The winners are measured again on fresh seeds.

This file knows nothing of images: outcomes are counted by whoever draws.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from minority.calibration.outcome import OBJECTIVES, Floors, Measured, Objective, ranking
from minority.calibration.space import BASELINES, CalibrationSpace


@dataclass(frozen=True, kw_only=True)
class CalibrationSettings:
    """How settings are searched.

    Attributes:
        budget: Denoiser evaluations in total, verification included (a backward pass counts as two), > 0. At least
            `least_budget`.
        candidates: Settings to start with, the baselines among them.
        keep: Places of a rung as a share of those of the rung before, in (0, 1).
        explore: Share of the places, but for the last rung's, that goes to untried neighbours of the best, in [0, 1).
        finalists: The search ends with a rung of at most so many.
        verification: Share of the budget for measuring winners and baselines on fresh seeds, in [0, 1).
        objective: Which winner the preset to paste is made of: "per_evaluation" keeps the most samples per denoiser
            evaluation, "yield" the largest share of its samples. Both are searched and reported.
        validity_floor: Share of samples that must be valid, in [0, 1).
        diversity_floor: Mean distance of samples to their nearest other one, as a share of that of real training
            images; >= 0.
        confidence: Probability with which a winner must reach the floor of validity, given what the search drew, in
            (0, 1).
        space: What is searched.
    """

    budget: int = 1_000_000
    candidates: int = 48
    keep: float = 0.5
    explore: float = 0.5
    finalists: int = 4
    verification: float = 0.25
    objective: Objective = "per_evaluation"
    validity_floor: float = 0.8
    diversity_floor: float = 0.5
    confidence: float = 0.95
    space: CalibrationSpace = field(default_factory=CalibrationSpace)

    def __post_init__(self) -> None:
        rules = {
            "budget": (self.budget > 0, "positive"),
            "candidates": (self.candidates > len(BASELINES), f"more than the {len(BASELINES)} baselines"),
            "keep": (0 < self.keep < 1, "in (0, 1)"),
            "explore": (0 <= self.explore < 1, "in [0, 1)"),
            "finalists": (self.finalists >= 1, "at least 1"),
            "verification": (0 <= self.verification < 1, "in [0, 1)"),
            "objective": (self.objective in OBJECTIVES, f"one of {', '.join(OBJECTIVES)}"),
            "validity_floor": (0 <= self.validity_floor < 1, "in [0, 1)"),
            "diversity_floor": (self.diversity_floor >= 0, "at least 0"),
            "confidence": (0 < self.confidence < 1, "in (0, 1)"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise ValueError(f"CalibrationSettings.{name} must be {rule}, got {getattr(self, name)}.")

    @property
    def floors(self) -> Floors:
        """What settings must reach."""
        return Floors(validity=self.validity_floor, diversity=self.diversity_floor, confidence=self.confidence)


@dataclass(frozen=True)
class Draw:
    """An order: draw these samples with this candidate.

    Attributes:
        candidate: Its position.
        first: First sample index.
        count: How many.
    """

    candidate: int
    first: int
    count: int


def rung_sizes(settings: CalibrationSettings, *, candidates: int) -> list[int]:
    """How many candidates each rung has, from all that start down to the finalists."""
    sizes = [candidates]
    while sizes[-1] > settings.finalists:
        sizes.append(max(settings.finalists, min(sizes[-1] - 1, math.ceil(sizes[-1] * settings.keep))))
    return sizes


def least_budget(settings: CalibrationSettings, costs: Sequence[float], *, particle_group: int) -> int:
    """The budget whose first rung has one particle group for everybody.

    Args:
        settings: How the budget is shared out.
        costs: Denoiser evaluations a sample, for everybody who starts.
        particle_group: Samples that are drawn together.
    """
    rungs = len(rung_sizes(settings, candidates=len(costs)))
    return math.ceil(particle_group * sum(costs) * rungs / (1 - settings.verification))


def narrow(
    settings: CalibrationSettings, measured: Sequence[Measured], survivors: Sequence[int], *, to: int
) -> list[int]:
    """The best of the survivors, best first, in turn by either objective, the chosen one first."""
    order = sorted(OBJECTIVES, key=lambda objective: objective != settings.objective)
    rankings = [ranking(settings.floors, measured, survivors, objective=objective) for objective in order]
    in_turn = itertools.chain.from_iterable(zip(*rankings, strict=True))
    return list(dict.fromkeys(in_turn))[:to]


def next_rung(
    settings: CalibrationSettings,
    measured: Sequence[Measured],
    survivors: Sequence[int],
    *,
    to: int,
    untried: Callable[[int], Sequence[int]],
) -> list[int]:
    """Who is in the next rung: the best of this one, and untried neighbours of theirs.

    Args:
        settings: How many places are for exploring.
        measured: What is known about every candidate.
        survivors: Who is in this rung.
        to: Candidates of the next rung, at least 1.
        untried: Untried neighbours of a candidate, in the order in which they are to be tried.
    """
    last = to <= settings.finalists
    # Newcomers may be too dear to catch up, so that finalists must be there without them.
    most = to if last else max(settings.finalists, math.ceil(to * (1 - settings.explore)))
    kept = narrow(settings, measured, survivors, to=most)
    if last:
        return kept
    queues = [list(untried(parent)) for parent in kept[: math.ceil(len(kept) / 2)]]
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*queues))
    new = list(dict.fromkeys(i for i in in_turn if i is not None))[: to - len(kept)]
    left = [i for i in narrow(settings, measured, survivors, to=to) if i not in kept]
    return [*kept, *new, *left[: to - len(kept) - len(new)]]


def plan_rung(
    settings: CalibrationSettings,
    costs: Sequence[float],
    measured: Sequence[Measured],
    participants: Sequence[int],
    *,
    rungs: int,
    first: int,
    particle_group: int = 1,
    round_size: int | None = None,
) -> list[Draw]:
    """The draws of one rung: its share of the budget, after which everybody in it has drawn the same samples.

    Args:
        settings: The budget.
        costs: Denoiser evaluations a sample, for every candidate.
        measured: What is known about every candidate; who has drawn nothing catches up.
        participants: Who is in. So many newcomers, the last first, are left out that catching up takes no more than
            half of the share.
        rungs: Rungs of the whole search, which share the budget equally.
        first: The first sample index that no earlier rung used.
        particle_group: Samples that are drawn together: the least, and what every count is a multiple of.
        round_size: Samples in which every group occurs equally often, a multiple of `particle_group`: what counts are
            multiples of where the share allows one. None: `particle_group`.
    """
    share = settings.budget * (1 - settings.verification) / rungs
    participants = list(participants)

    def catching_up() -> float:
        return first * sum(costs[i] for i in participants if measured[i].samples == 0)

    while catching_up() > share / 2:
        participants.remove(next(i for i in reversed(participants) if measured[i].samples == 0))
    count = whole(
        (share - catching_up()) / sum(costs[i] for i in participants),
        particle_group=particle_group,
        round_size=round_size,
    )
    newcomers = [Draw(i, 0, first) for i in participants if first and measured[i].samples == 0]
    return newcomers + [Draw(i, first, count) for i in participants]


def whole(count: float, *, particle_group: int, round_size: int | None = None) -> int:
    """The most samples of whole rounds, or of whole particle groups where there is not one round, that a count allows.

    Args:
        count: At least one particle group is given, however small it is.
        particle_group: Samples that are drawn together.
        round_size: Samples in which every group occurs equally often, a multiple of `particle_group`; None:
            `particle_group`.
    """
    multiple = round_size if round_size is not None and count >= round_size else particle_group
    return max(1, int(count / multiple)) * multiple
