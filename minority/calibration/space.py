"""The sampler settings among which a calibration searches, and those that it is compared with."""

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np

from minority.guidance.boost_and_skip import BoostAndSkip
from minority.guidance.prune_and_branch import PruneAndBranch
from minority.guidance.self_guidance import SelfGuidance
from minority.sampling.settings import SamplerSettings

#: Names of the candidates that every calibration is compared with.
PLAIN, PUBLISHED_SELF_GUIDANCE, PUBLISHED_BOOST_AND_SKIP = (
    "plain",
    "published self-guidance",
    "published boost-and-skip",
)
BASELINES = (PLAIN, PUBLISHED_SELF_GUIDANCE, PUBLISHED_BOOST_AND_SKIP)
#: Name of the settings in use, where the search is told any: what it finds is measured against them.
PRESENT = "present settings"

_GUIDANCE = ("perturbation", "interval", "above")
_ASPECT = {"boost": "start", "skip": "start"} | dict.fromkeys(("scale", "jacobian_scale", *_GUIDANCE), "guidance")


@dataclass(frozen=True, kw_only=True)
class Walk:
    """A solver and its steps, as in SamplerSettings."""

    solver: Literal["ancestral", "ddim", "dpm_solver"] = "ancestral"
    steps: int | str = 50

    def describe(self) -> str:
        """For example "dpm_solver logsnr20"."""
        return f"{self.solver} {self.steps}"

    @property
    def may_branch(self) -> bool:
        """Whether it adds noise on the way whatever else is set; without noise branches would stay copies."""
        return SamplerSettings(solver=self.solver, steps=self.steps).walk.is_stochastic


@dataclass(frozen=True, kw_only=True)
class CalibrationSpace:
    """The settings among which is searched: every combination of one walk, start, guidance and pruning.

    Values of a setting are listed in ascending order: the one before and the one after are its neighbours.

    Attributes:
        walks: Solvers with their steps.
        boost: Standard deviations of a boosted start.
        skip: Shares of the chain that a boosted start skips.
        scale: Guidance scales of self-guidance without the Jacobian.
        perturbation: Its perturbation steps, as fractions of the chain.
        interval: Its guidance intervals.
        above: The chain's fractions below which it stops guiding; -1 guides to the end.
        jacobian_scale: Guidance scales of self-guidance through the denoiser, at the first interval and `above`.
        pruning: Points at which chains are pruned by features, as fractions of the way from noise to image; only where
            the walk is ancestral. Families are those of the settings in use, where these prune.
    """

    walks: tuple[Walk, ...] = (
        Walk(steps=20),
        Walk(),
        Walk(solver="ddim", steps=25),
        Walk(solver="dpm_solver", steps="logsnr20"),
    )
    boost: tuple[float, ...] = (2.0, 3.0, 4.0)
    skip: tuple[float, ...] = (0.06, 0.12)
    scale: tuple[float, ...] = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
    perturbation: tuple[float, ...] = (0.35, 0.5, 0.65, 0.8)
    interval: tuple[int, ...] = (2, 5)
    above: tuple[float, ...] = (-1.0, 0.3)
    jacobian_scale: tuple[float, ...] = (0.4, 1.0, 4.0)
    pruning: tuple[tuple[float, ...], ...] = ((0.5,), (0.5, 0.7))

    def __post_init__(self) -> None:
        if not self.walks:
            raise ValueError("CalibrationSpace.walks must name at least one solver with its steps, got none.")
        for name in ("boost", "skip", "scale", "perturbation", "interval", "above", "jacobian_scale", "pruning"):
            values = getattr(self, name)
            if list(values) != sorted(set(values)):
                raise ValueError(f"CalibrationSpace.{name} must ascend without repetition, got {values}.")
        self.prunings(PruneAndBranch())  # refuses points that are none

    def candidates(self, base: SamplerSettings) -> Sequence["Candidate"]:
        """The baselines, and every combination of the space.

        Args:
            base: Everything else about sampling; the baselines walk as it does. Where it guides or boosts, it is the
                settings in use, and the last of the baselines.
        """
        return _candidates(self, base)

    def start(self, base: SamplerSettings, *, limit: int, seed: int) -> list[int]:
        """Where a search starts: the baselines, and combinations in which every value is about equally frequent.

        Args:
            base: As for `candidates`.
            limit: How many, at least the baselines.
            seed: Decides the draw.

        Returns:
            Positions among `candidates`, ascending; all of them where there are no more than `limit`.
        """
        everything = self.candidates(base)
        if len(everything) <= limit:
            return list(range(len(everything)))
        at = {frozenset(self.places(candidate.sampler).items()): i for i, candidate in enumerate(everything)}
        rng, chosen = np.random.default_rng(seed), dict.fromkeys(range(len(baselines(base))))
        while len(chosen) < limit:
            found = [at[frozenset(row.items())] for row in self._hypercube(limit, rng)]
            new = [i for i in dict.fromkeys(found) if i not in chosen]
            chosen |= dict.fromkeys(new[: limit - len(chosen)])
        return sorted(chosen)

    def neighbours(self, base: SamplerSettings, place: int, *, seed: int) -> list[int]:
        """Combinations that differ from one in a single respect, in an order drawn at random.

        In a single respect means: another walk; the next value of one setting; with or without a boosted start; with
        or without guidance; guidance through the denoiser or not; with or without pruning. The baselines are nobody's
        neighbours.

        Args:
            base: As for `candidates`.
            place: The position of the combination.
            seed: Decides the order, together with the position.
        """
        everything = self.candidates(base)
        mine = self.places(everything[place].sampler)
        found = [
            i
            for i in range(len(baselines(base)), len(everything))
            if i != place and _in_one_respect(mine, self.places(everything[i].sampler))
        ]
        order: list[int] = np.random.default_rng([seed, place]).permutation(found).tolist()
        return order

    def places(self, sampler: SamplerSettings) -> dict[str, int]:
        """Where each of its settings stands in the declared values; values that are not declared stand at -1."""
        return dict(_places(self, sampler))

    def _hypercube(self, count: int, rng: np.random.Generator) -> list[dict[str, int]]:
        """Rows of places in which the values of every setting are about equally frequent (McKay et al. 1979)."""
        starts = [{"boost": i} for i in range(len(self.boost)) if self.skip]
        strengths = [{"scale": i} for i in range(len(self.scale))]
        strengths += [{"jacobian_scale": i} for i in range(len(self.jacobian_scale))]
        guided = bool(self.perturbation and self.interval and self.above)
        options: dict[str, list[dict[str, int]]] = {
            "start": [{}, *starts],
            "strength": [{}, *strengths] if guided else [{}],
            "pruning": [{}, *({"pruning": i} for i in range(len(self.pruning)))],
        }
        for name, values in {
            "walk": self.walks,
            **{name: getattr(self, name) for name in ("skip", *_GUIDANCE)},
        }.items():
            options[name] = [{name: i} for i in range(len(values))] or [{}]
        columns = {
            name: [choices[i] for i in rng.permutation(np.resize(range(len(choices)), count))]
            for name, choices in options.items()
        }
        return [self._row({name: column[i] for name, column in columns.items()}) for i in range(count)]

    def _row(self, drawn: dict[str, dict[str, int]]) -> dict[str, int]:
        """The places that count, of those drawn for every setting."""
        row = drawn["walk"] | drawn["start"] | drawn["strength"]
        if drawn["start"]:
            row |= drawn["skip"]
        if drawn["strength"]:
            for name in _GUIDANCE:
                row |= drawn[name]
        if self.walks[row["walk"]].may_branch:
            row |= drawn["pruning"]
        if "jacobian_scale" in row:
            row |= {"interval": 0, "above": 0}
        return row

    def guidance(self) -> list[SelfGuidance]:
        """Every self-guidance of the space."""
        free = [
            SelfGuidance(scale=w, perturbation=s, interval=n, above=a, jacobian=False)
            for w, s, n, a in itertools.product(self.scale, self.perturbation, self.interval, self.above)
        ]
        through = [
            SelfGuidance(scale=w, perturbation=s, interval=self.interval[0], above=self.above[0])
            for w, s in itertools.product(self.jacobian_scale, self.perturbation)
            if self.interval and self.above
        ]
        return free + through

    def prunings(self, base: PruneAndBranch) -> list[PruneAndBranch]:
        """Every pruning of the space, with the families of `base`."""
        return [replace(base, judge="features", points=points) for points in self.pruning]


@dataclass(frozen=True)
class Candidate:
    """Sampler settings under a name."""

    name: str
    sampler: SamplerSettings


def baselines(base: SamplerSettings) -> list[Candidate]:
    """Plain sampling, the settings that the papers publish (Um & Ye 2024; Um, Kim & Ye 2025), and those in use."""
    plain = base.plain()
    published = SelfGuidance(scale=0.4, interval=5, perturbation=0.8)
    found = [
        Candidate(PLAIN, plain),
        Candidate(PUBLISHED_SELF_GUIDANCE, replace(plain, self_guidance=published)),
        Candidate(PUBLISHED_BOOST_AND_SKIP, replace(plain, boost_and_skip=BoostAndSkip())),
    ]
    known = {candidate.sampler for candidate in found}
    return found if base in known else [*found, Candidate(PRESENT, base)]


@lru_cache(maxsize=4)
def _candidates(space: CalibrationSpace, base: SamplerSettings) -> tuple[Candidate, ...]:
    starts = [None, *(BoostAndSkip(boost=b, skip=s) for b, s in itertools.product(space.boost, space.skip))]
    prunings = space.prunings(base.prune_and_branch or PruneAndBranch())
    everything = [
        replace(
            base.plain(),
            solver=walk.solver,
            steps=walk.steps,
            boost_and_skip=start,
            self_guidance=guide,
            prune_and_branch=prune,
        )
        for walk, start, guide in itertools.product(space.walks, starts, [None, *space.guidance()])
        for prune in [None, *(prunings if walk.may_branch else [])]
    ]
    compared = baselines(base)
    known = {candidate.sampler for candidate in compared if candidate.name in (PLAIN, PRESENT)}
    return (*compared, *(Candidate(describe(sampler), sampler) for sampler in everything if sampler not in known))


@lru_cache(maxsize=16384)
def _places(space: CalibrationSpace, sampler: SamplerSettings) -> tuple[tuple[str, int], ...]:
    def place(values: Sequence[object], value: object) -> int:
        return list(values).index(value) if value in values else -1

    found = {"walk": place(space.walks, Walk(solver=sampler.solver, steps=sampler.steps))}
    if (start := sampler.boost_and_skip) is not None:
        found |= {"boost": place(space.boost, start.boost), "skip": place(space.skip, start.skip)}
    if (guide := sampler.self_guidance) is not None:
        kind = "jacobian_scale" if guide.jacobian else "scale"
        found |= {kind: place(getattr(space, kind), guide.scale)}
        found |= {name: place(getattr(space, name), getattr(guide, name)) for name in _GUIDANCE}
    if (prune := sampler.prune_and_branch) is not None:
        found |= {"pruning": place(space.pruning, prune.points) if prune.judge == "features" else -1}
    return tuple(found.items())


def _in_one_respect(mine: dict[str, int], other: dict[str, int]) -> bool:
    lacking = {_ASPECT.get(name, name) for name in mine.keys() ^ other.keys()}
    differing = [name for name in mine.keys() & other.keys() if mine[name] != other[name]]
    if lacking:
        return len(lacking) == 1 and not differing
    return differing == ["walk"] or (len(differing) == 1 and abs(mine[differing[0]] - other[differing[0]]) == 1)


def describe(sampler: SamplerSettings) -> str:
    """Settings in a line."""
    parts = [Walk(solver=sampler.solver, steps=sampler.steps).describe()]
    if (start := sampler.boost_and_skip) is not None:
        parts.append(f"boost {start.boost:g} skip {start.skip:g}")
    if (guide := sampler.self_guidance) is not None:
        kind = "w/ Jacobian" if guide.jacobian else "no Jacobian"
        until = "" if guide.above < 0 else f" above {guide.above:g}"
        parts.append(f"w {guide.scale:g} s {guide.perturbation:g} n {guide.interval}{until}, {kind}")
    if (prune := sampler.prune_and_branch) is not None:
        parts.append(f"prune by {prune.judge} at {' '.join(f'{point:g}' for point in prune.points)}")
    return ", ".join(parts)


def common_family(candidates: Sequence[Candidate]) -> int:
    """Consecutive sample indices that are whole families of every candidate."""
    return math.lcm(*{candidate.sampler.family for candidate in candidates})


def expected_cost(sampler: SamplerSettings) -> float:
    """Denoiser evaluations a sample that these settings should take; what is measured replaces it."""
    steps = sum(int(number) for number in re.findall(r"\d+", str(sampler.steps)))
    start, guide, prune = sampler.boost_and_skip, sampler.self_guidance, sampler.prune_and_branch
    walked = steps - (0 if start is None else int(start.skip * steps))
    judged = prune.draws * len(prune.points) if prune is not None and prune.judge == "metric" else 0
    if guide is None:
        return float(walked + judged)
    guided = sum(guide.acts_at(step, steps) for step in range(walked))
    return float(walked + judged + guided * (guide.draws + 2 * guide.jacobian))
