"""The sampler settings among which a calibration searches, and those that it is compared with."""

import itertools
import re
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from minority.guidance.boost_and_skip import BoostAndSkip
from minority.guidance.self_guidance import SelfGuidance
from minority.sampler_settings import SamplerSettings

#: Names of the candidates that every calibration is compared with.
PLAIN, PUBLISHED_SELF_GUIDANCE, PUBLISHED_BOOST_AND_SKIP = (
    "plain",
    "published self-guidance",
    "published boost-and-skip",
)
BASELINES = (PLAIN, PUBLISHED_SELF_GUIDANCE, PUBLISHED_BOOST_AND_SKIP)


@dataclass(frozen=True, kw_only=True)
class Walk:
    """A solver and its steps, as in SamplerSettings."""

    solver: Literal["ancestral", "ddim", "dpm_solver"] = "ancestral"
    steps: int | str = 50

    def describe(self) -> str:
        """For example "dpm_solver logsnr20"."""
        return f"{self.solver} {self.steps}"


@dataclass(frozen=True, kw_only=True)
class CalibrationSpace:
    """The settings among which is searched: every combination of one walk, one start and one guidance.

    Attributes:
        walks: Solvers with their steps.
        boost: Standard deviations of a boosted start.
        skip: Shares of the chain that a boosted start skips.
        scale: Guidance scales of self-guidance without the Jacobian.
        perturbation: Its perturbation steps, as fractions of the chain.
        interval: Its guidance intervals.
        above: The chain's fractions below which it stops guiding; -1 guides to the end.
        jacobian_scale: Guidance scales of self-guidance through the denoiser, at the first interval and `above`.
    """

    walks: tuple[Walk, ...] = (Walk(), Walk(solver="ddim", steps=25), Walk(solver="dpm_solver", steps="logsnr20"))
    boost: tuple[float, ...] = (2.0, 4.0)
    skip: tuple[float, ...] = (0.06, 0.12)
    scale: tuple[float, ...] = (1.0, 2.0, 4.0, 6.0, 8.0)
    perturbation: tuple[float, ...] = (0.5, 0.8)
    interval: tuple[int, ...] = (5,)
    above: tuple[float, ...] = (-1.0, 0.3)
    jacobian_scale: tuple[float, ...] = (0.4, 4.0)

    def __post_init__(self) -> None:
        if not self.walks:
            raise ValueError("CalibrationSpace.walks must name at least one solver with its steps, got none.")

    def candidates(self, base: SamplerSettings, *, limit: int, seed: int) -> list["Candidate"]:
        """The baselines, and combinations drawn at random without repetition, up to `limit` in total.

        Args:
            base: Everything else about sampling; the baselines walk as it does.
            limit: How many, at least the three baselines.
            seed: Decides the draw.
        """
        starts = [None, *(BoostAndSkip(boost=b, skip=s) for b, s in itertools.product(self.boost, self.skip))]
        guidance = [None, *self._guidance()]
        everything = [
            replace(base.plain(), solver=walk.solver, steps=walk.steps, boost_and_skip=start, self_guidance=guide)
            for walk, start, guide in itertools.product(self.walks, starts, guidance)
            if (walk.solver, walk.steps, start, guide) != (base.solver, base.steps, None, None)
        ]
        order = np.random.default_rng(seed).permutation(len(everything))[: max(0, limit - len(BASELINES))]
        return baselines(base) + [Candidate(describe(everything[i]), everything[i]) for i in sorted(order.tolist())]

    def _guidance(self) -> list[SelfGuidance]:
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


@dataclass(frozen=True)
class Candidate:
    """Sampler settings under a name."""

    name: str
    sampler: SamplerSettings


def baselines(base: SamplerSettings) -> list[Candidate]:
    """Plain sampling, and the settings that the papers publish (Um & Ye 2024; Um, Kim & Ye 2025)."""
    plain = base.plain()
    published = SelfGuidance(scale=0.4, interval=5, perturbation=0.8)
    return [
        Candidate(PLAIN, plain),
        Candidate(PUBLISHED_SELF_GUIDANCE, replace(plain, self_guidance=published)),
        Candidate(PUBLISHED_BOOST_AND_SKIP, replace(plain, boost_and_skip=BoostAndSkip())),
    ]


def describe(sampler: SamplerSettings) -> str:
    """Settings in a line."""
    parts = [Walk(solver=sampler.solver, steps=sampler.steps).describe()]
    if (start := sampler.boost_and_skip) is not None:
        parts.append(f"boost {start.boost:g} skip {start.skip:g}")
    if (guide := sampler.self_guidance) is not None:
        kind = "w/ Jacobian" if guide.jacobian else "no Jacobian"
        until = "" if guide.above < 0 else f" above {guide.above:g}"
        parts.append(f"w {guide.scale:g} s {guide.perturbation:g} n {guide.interval}{until}, {kind}")
    return ", ".join(parts)


def expected_cost(sampler: SamplerSettings) -> float:
    """Denoiser evaluations a sample that these settings should take; what is measured replaces it."""
    steps = sum(int(number) for number in re.findall(r"\d+", str(sampler.steps)))
    start, guide = sampler.boost_and_skip, sampler.self_guidance
    walked = steps - (0 if start is None else int(start.skip * steps))
    if guide is None:
        return float(walked)
    guided = sum(guide.acts_at(step, steps) for step in range(walked))
    return float(walked + guided * (guide.draws + 2 * guide.jacobian))
