"""Finding the sampler settings that keep the most samples per unit of compute: successive halving.

All candidates start with few samples; rung by rung the worse part is dropped and the better part draws more, so that
most of the budget goes to the few that are hard to tell apart (Jamieson & Talwalkar, AISTATS 2016). Candidates share
their sample indices, and so noise and labels, which makes their differences smaller than those of independent draws.

A candidate counts by the samples it keeps per 1000 denoiser evaluations, provided that it reaches a floor of validity
and a floor of diversity. The winner is measured again on fresh seeds, since the best of many looks better than it is.

This file knows nothing of images: outcomes are counted by whoever draws.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from minority.calibration_space import BASELINES, CalibrationSpace
from minority.intervals import wilson


@dataclass(frozen=True, kw_only=True)
class CalibrationSettings:
    """How settings are searched.

    Attributes:
        budget: Denoiser evaluations in total, verification included (a backward pass counts as two), > 0.
        candidates: Settings to start with, the baselines among them.
        keep: Share of the candidates that goes on to the next rung, in (0, 1).
        finalists: The search ends with a rung of at most so many.
        verification: Share of the budget for measuring winner and baselines on fresh seeds, in [0, 1).
        validity_floor: Share of samples that must be valid, in [0, 1].
        diversity_floor: Mean distance of samples to their nearest other one, as a share of that of real training
            images; >= 0.
        space: What is searched.
    """

    budget: int = 1_000_000
    candidates: int = 48
    keep: float = 0.34
    finalists: int = 3
    verification: float = 0.25
    validity_floor: float = 0.8
    diversity_floor: float = 0.5
    space: CalibrationSpace = field(default_factory=CalibrationSpace)

    def __post_init__(self) -> None:
        rules = {
            "budget": (self.budget > 0, "positive"),
            "candidates": (self.candidates > len(BASELINES), f"more than the {len(BASELINES)} baselines"),
            "keep": (0 < self.keep < 1, "in (0, 1)"),
            "finalists": (self.finalists >= 1, "at least 1"),
            "verification": (0 <= self.verification < 1, "in [0, 1)"),
            "validity_floor": (0 <= self.validity_floor <= 1, "in [0, 1]"),
            "diversity_floor": (self.diversity_floor >= 0, "at least 0"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise ValueError(f"CalibrationSettings.{name} must be {rule}, got {getattr(self, name)}.")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What is known about one candidate.

    Attributes:
        samples: Samples drawn.
        rare, valid, new, label_kept, passed: How many of them each filter, and all together, let through.
        evaluations: Denoiser evaluations that they cost together.
        diversity: Mean distance to the nearest other sample over that among real images; None where not measured.
    """

    samples: int = 0
    rare: int = 0
    valid: int = 0
    new: int = 0
    label_kept: int = 0
    passed: int = 0
    evaluations: float = 0.0
    diversity: float | None = None

    def __add__(self, other: "Measured") -> "Measured":
        known = [(m.diversity, m.samples) for m in (self, other) if m.diversity is not None]
        total = sum(samples for _, samples in known)
        sums = {name: value + getattr(other, name) for name, value in asdict(self).items() if name != "diversity"}
        return Measured(**sums, diversity=sum(value * samples for value, samples in known) / total if total else None)

    @property
    def kept_share(self) -> float:
        """Yield: the share that passes every filter."""
        return self.passed / max(1, self.samples)

    @property
    def valid_share(self) -> float:
        """The share that is valid."""
        return self.valid / max(1, self.samples)

    @property
    def per_1000_evaluations(self) -> float:
        """Samples kept per 1000 denoiser evaluations."""
        return 1000 * self.passed / self.evaluations if self.evaluations else 0.0

    def per_1000_evaluations_interval(self) -> tuple[float, float]:
        """Its 95 % interval, from that of the yield at the cost measured."""
        low, high = wilson(self.passed, self.samples)
        cost = self.evaluations / max(1, self.samples)
        return (1000 * low / cost, 1000 * high / cost) if cost else (0.0, math.inf)


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
    """How many candidates each rung has, from all of them down to the finalists."""
    sizes = [candidates]
    while sizes[-1] > settings.finalists:
        sizes.append(max(settings.finalists, min(sizes[-1] - 1, math.ceil(sizes[-1] * settings.keep))))
    return sizes


def plan_rung(
    settings: CalibrationSettings, costs: Sequence[float], survivors: Sequence[int], *, first: int
) -> list[Draw]:
    """The draws of one rung: its share of the budget, in equal numbers of samples for every survivor.

    Args:
        settings: Budget and rungs.
        costs: Denoiser evaluations a sample, for every candidate.
        survivors: Who is still in.
        first: The first sample index that no earlier rung used.
    """
    rungs = len(rung_sizes(settings, candidates=len(costs)))
    share = settings.budget * (1 - settings.verification) / rungs
    count = max(1, int(share / sum(costs[i] for i in survivors)))
    return [Draw(i, first, count) for i in survivors]


def narrow(
    settings: CalibrationSettings, measured: Sequence[Measured], survivors: Sequence[int], *, to: int
) -> list[int]:
    """The best of the survivors, best first; those that clearly miss a floor come last."""
    return sorted(survivors, key=lambda i: _rank(settings, measured[i]), reverse=True)[:to]


def winner(settings: CalibrationSettings, measured: Sequence[Measured]) -> int | None:
    """The candidate that keeps most per evaluation among those measured most that reach the floors.

    Where no finalist reaches them, those that left the search last are asked; None where nobody does.
    """
    for samples in sorted({m.samples for m in measured}, reverse=True):
        able = [i for i, m in enumerate(measured) if m.samples == samples and reaches_floors(settings, m)]
        if able:
            return max(able, key=lambda i: measured[i].per_1000_evaluations)
    return None


def highest_yield(settings: CalibrationSettings, measured: Sequence[Measured]) -> int | None:
    """The candidate that keeps the largest share of its samples at any cost; None where none reaches the floors.

    Only those count that drew at least a quarter of the most samples: the share of a few says little.
    """
    least = max(m.samples for m in measured) / 4
    able = [i for i, m in enumerate(measured) if m.samples >= least and reaches_floors(settings, m)]
    return max(able, key=lambda i: measured[i].kept_share) if able else None


def reaches_floors(settings: CalibrationSettings, measured: Measured) -> bool:
    """Whether validity and diversity are as high as demanded."""
    diverse = measured.diversity is None or measured.diversity >= settings.diversity_floor
    return measured.samples > 0 and measured.valid_share >= settings.validity_floor and diverse


def ratio_interval(
    ours: Measured, theirs: Measured, *, seed: int = 0, draws: int = 4000
) -> tuple[float, NDArray[np.float64]]:
    """How many times more we keep per evaluation: the ratio, and its 95 % interval.

    The interval comes from the Beta posteriors of the two yields under Jeffreys' prior, so that a yield of 0 among the
    samples drawn still gives one; the ratio itself is then infinite.
    """
    rng = np.random.default_rng(seed)
    shares = [rng.beta(m.passed + 0.5, m.samples - m.passed + 0.5, size=draws) for m in (ours, theirs)]
    costs = [m.evaluations / max(1, m.samples) for m in (ours, theirs)]
    ratios = shares[0] / shares[1] * costs[1] / costs[0]
    point = ours.per_1000_evaluations / theirs.per_1000_evaluations if theirs.passed else math.inf
    return point, np.quantile(ratios, [0.025, 0.975])


def _rank(settings: CalibrationSettings, measured: Measured) -> tuple[bool, float, float]:
    # While few samples are drawn, a share counts as below the floor only where that is more than a standard error.
    _, high = wilson(measured.valid, measured.samples, z=1.0)
    diverse = measured.diversity is None or measured.diversity >= settings.diversity_floor
    reaches = high >= settings.validity_floor and diverse
    return reaches, measured.per_1000_evaluations if reaches else 0.0, measured.valid_share
