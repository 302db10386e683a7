"""What is known about the candidates of a calibration, and which of them is best.

Two objectives are followed side by side: samples kept per denoiser evaluation, and samples kept per sample (the yield).
Either counts only for settings that are as valid and as diverse as demanded. The best of many looks better than it is,
in validity too: so the floor of validity must hold with a stated probability, given the samples drawn, and not merely
in those samples.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from minority.evaluation.intervals import wilson

Objective = Literal["per_evaluation", "yield"]
OBJECTIVES: tuple[Objective, ...] = ("per_evaluation", "yield")


@dataclass(frozen=True, kw_only=True)
class Floors:
    """What settings must reach.

    Attributes:
        validity: Share of samples that must be valid, in [0, 1).
        diversity: Mean distance of samples to their nearest other one, as a share of that of real training images.
        confidence: Probability with which the validity must be reached, in (0, 1).
    """

    validity: float
    diversity: float
    confidence: float


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What is known about one candidate.

    Attributes:
        samples: Samples drawn.
        rare, valid, new, label_kept, passed: How many of them each filter, and all together, let through.
        evaluations: Denoiser evaluations that they cost together.
        copies: Samples whose chain is a branch of another sample's, where chains are pruned. They tell little that
            is new, so intervals and probabilities count the root ancestors alone.
        diversity: Mean distance to the nearest other sample over that among real images; None where not measured.
    """

    samples: int = 0
    rare: int = 0
    valid: int = 0
    new: int = 0
    label_kept: int = 0
    passed: int = 0
    evaluations: float = 0.0
    copies: int = 0
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
    def independent(self) -> float:
        """The share of samples that are nobody's copies."""
        return 1 - self.copies / max(1, self.samples)

    def interval(self, count: int) -> tuple[float, float]:
        """95 % interval of the share that so many of the samples are."""
        return wilson(self.independent * count, self.independent * self.samples)

    @property
    def per_1000_evaluations(self) -> float:
        """Samples kept per 1000 denoiser evaluations."""
        return 1000 * self.passed / self.evaluations if self.evaluations else 0.0

    def per_1000_evaluations_interval(self) -> tuple[float, float]:
        """Its 95 % interval, from that of the yield at the cost measured."""
        low, high = self.interval(self.passed)
        cost = self.evaluations / max(1, self.samples)
        return (1000 * low / cost, 1000 * high / cost) if cost else (0.0, math.inf)

    def merit(self, objective: Objective) -> float:
        """What counts under an objective."""
        return self.kept_share if objective == "yield" else self.per_1000_evaluations


def floors_probability(floors: Floors, measured: Measured) -> float:
    """Probability that settings reach the floors, in [0, 1]; 0 where they are not diverse or nothing is drawn.

    The validity has the Beta posterior of its samples under Jeffreys' prior.
    """
    if measured.samples == 0 or (measured.diversity is not None and measured.diversity < floors.diversity):
        return 0.0
    valid = measured.independent * measured.valid
    invalid = measured.independent * measured.samples - valid
    return float(special.betainc(invalid + 0.5, valid + 0.5, 1 - floors.validity))


def reaches_floors(floors: Floors, measured: Measured) -> bool:
    """Whether the shares seen are as high as demanded."""
    diverse = measured.diversity is None or measured.diversity >= floors.diversity
    return measured.samples > 0 and measured.valid_share >= floors.validity and diverse


def best(floors: Floors, measured: Sequence[Measured], *, objective: Objective) -> int | None:
    """The candidate of the highest merit among those that reach the floors with the confidence demanded.

    Only those count that drew at least a quarter of the most samples: the share of a few says little. None where no
    candidate is sure enough.
    """
    least = max(m.samples for m in measured) / 4
    sure = [
        i for i, m in enumerate(measured) if m.samples >= least and floors_probability(floors, m) >= floors.confidence
    ]
    return max(sure, key=lambda i: measured[i].merit(objective)) if sure else None


def ranking(
    floors: Floors, measured: Sequence[Measured], survivors: Sequence[int], *, objective: Objective
) -> list[int]:
    """The survivors, best first, by merit times the probability that they reach the floors."""

    def worth(i: int) -> tuple[float, float]:
        probability = floors_probability(floors, measured[i])
        return probability * measured[i].merit(objective), probability

    return sorted(survivors, key=worth, reverse=True)


def ratio_interval(
    ours: Measured, theirs: Measured, *, objective: Objective = "per_evaluation", seed: int = 0, draws: int = 4000
) -> tuple[float, NDArray[np.float64]]:
    """How many times more we keep, per evaluation or per sample: the ratio, and its 95 % interval.

    The interval comes from the Beta posteriors of the two yields under Jeffreys' prior, so that a yield of 0 among the
    samples drawn still gives one; the ratio itself is then infinite.
    """
    rng = np.random.default_rng(seed)
    shares = [
        rng.beta(m.independent * m.passed + 0.5, m.independent * (m.samples - m.passed) + 0.5, size=draws)
        for m in (ours, theirs)
    ]
    ratios = shares[0] / shares[1]
    if objective == "per_evaluation":
        costs = [m.evaluations / max(1, m.samples) for m in (ours, theirs)]
        ratios = ratios * costs[1] / costs[0]
    point = ours.merit(objective) / theirs.merit(objective) if theirs.passed else math.inf
    return point, np.quantile(ratios, [0.025, 0.975])
