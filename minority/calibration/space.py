"""The sampler settings among which a calibration searches, and those that it is compared with.

No guidance method is named here: what is searched of each stands in its own file (minority/calibration/grids.py).
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from minority.calibration.grids import GRIDS, Grid, check_values, combinations, declared, grid_indices, steps_apart
from minority.guidance import combination_problem
from minority.guidance.registry import METHODS
from minority.sampling.settings import SamplerSettings
from minority.solvers import SolverName

#: Name of plain sampling, with which every calibration is compared.
PLAIN = "plain"
#: The published settings with which every calibration is compared, by name.
PUBLISHED = {
    f"published {name}": settings
    for key, method in [*METHODS.items()][::-1]
    if (settings := method.published()) is not None
    for name in [key.replace("_", "-")]
}
#: Names of the candidates that every calibration is compared with.
BASELINES = (PLAIN, *PUBLISHED)
#: Name of the settings in use, where the search is told any: what it finds is measured against them.
PRESENT = "present settings"


@dataclass(frozen=True, kw_only=True)
class SolverSteps:
    """A solver and its steps, as in SamplerSettings.

    Attributes:
        solver: As in SamplerSettings.
        steps: Steps of the respaced chain: a number, or sections such as "logsnr20".
    """

    solver: SolverName = "ancestral"
    steps: int | str = 50

    def describe(self) -> str:
        """For example "dpm_solver logsnr20"."""
        return f"{self.solver} {self.steps}"

    def of(self, settings: SamplerSettings) -> SamplerSettings:
        """The same settings with this solver and these steps."""
        return replace(settings, solver=self.solver, steps=self.steps)


@dataclass(frozen=True, kw_only=True)
class _Solvers:
    """The solvers that are searched; the first part of CalibrationSpace."""

    solvers: tuple[SolverSteps, ...] = (
        SolverSteps(steps=20),
        SolverSteps(),
        SolverSteps(solver="ddim", steps=25),
        SolverSteps(solver="dpm_solver", steps="logsnr20"),
    )


if TYPE_CHECKING:
    _WithGrids = _Solvers
else:
    _WithGrids = make_dataclass(
        "_WithGrids",
        [(key, tuple[grid, ...], field(default=declared(key))) for key, grid in GRIDS.items()],
        bases=(_Solvers,),
        frozen=True,
        kw_only=True,
    )


@dataclass(frozen=True, kw_only=True)
class CalibrationSpace(_WithGrids):
    """The settings among which is searched: every combination of a solver with its steps and of what is searched of
    each method.

    Beside `solvers`, every guidance method is an attribute: a sequence of grids of its settings, those of its own file
    by default. Each is searched with the method and without it. A method without grids is kept as the preset has it,
    and so is every setting that no grid lists. Values ascend: the one before and the one after are neighbours.

    Attributes:
        solvers: Solvers with their steps.
    """

    def __post_init__(self) -> None:
        if not self.solvers:
            raise ValueError("CalibrationSpace.solvers must name at least one solver with its steps, got none.")
        for key, grids in self.grids.items():
            for i, grid in enumerate(grids):
                grid.check(f"CalibrationSpace.{key}" + (f".{i}" if len(grids) > 1 else ""))
            check_values(key, grids)

    @property
    def grids(self) -> dict[str, tuple[Grid, ...]]:
        """The methods that are searched, with their grids."""
        return {key: grids for key in METHODS if (grids := getattr(self, key))}

    def candidates(self, base: SamplerSettings, *, by_prompts: bool = False) -> Sequence["Candidate"]:
        """The baselines, and every combination of the space.

        Args:
            base: What is not searched is kept as it is there; the baselines have its solver and steps. Where it guides
                or boosts, it is the settings in use, and the last of the baselines.
            by_prompts: Of a text-to-image backbone: see `baselines`.
        """
        return _candidates(self, base, by_prompts)

    def start(self, base: SamplerSettings, *, limit: int, seed: int, by_prompts: bool = False) -> list[int]:
        """Where a search starts: the baselines, and combinations in which every value is about equally frequent.

        Args:
            base: What is not searched is kept as it is there.
            limit: How many, at least the baselines.
            seed: Decides the draw.
            by_prompts: Of a text-to-image backbone.

        Returns:
            Positions among `candidates`, ascending; all of them where there are no more than `limit`.
        """
        everything = self.candidates(base, by_prompts=by_prompts)
        if len(everything) <= limit:
            return list(range(len(everything)))
        at = {frozenset(self.grid_indices(candidate.sampler).items()): i for i, candidate in enumerate(everything)}
        rng, chosen = np.random.default_rng(seed), dict.fromkeys(range(len(baselines(base, by_prompts=by_prompts))))
        while len(chosen) < limit:
            drawn = (frozenset(row.items()) for row in self._hypercube(base, limit, rng))
            new = [i for i in dict.fromkeys(at[row] for row in drawn if row in at) if i not in chosen]
            chosen |= dict.fromkeys(new[: limit - len(chosen)])
        return sorted(chosen)

    def neighbours(self, base: SamplerSettings, index: int, *, seed: int, by_prompts: bool = False) -> list[int]:
        """Combinations that differ from one in a single respect, in an order drawn at random.

        In a single respect means: another solver or other steps; with or without a method; the next value of one
        setting; another grid of a method. The baselines are nobody's neighbours.

        Args:
            base: What is not searched is kept as it is there.
            index: The position of the combination.
            seed: Decides the order, together with the position.
            by_prompts: Of a text-to-image backbone.
        """
        everything = self.candidates(base, by_prompts=by_prompts)
        sampler = everything[index].sampler
        neighbours = [
            i
            for i in range(len(baselines(base, by_prompts=by_prompts)), len(everything))
            if i != index and self._in_one_respect(sampler, everything[i].sampler)
        ]
        order: list[int] = np.random.default_rng([seed, index]).permutation(neighbours).tolist()
        return order

    def grid_indices(self, sampler: SamplerSettings) -> dict[str, int]:
        """Where each searched setting stands in the declared values; values that are not declared stand at -1."""
        steps = SolverSteps(solver=sampler.solver, steps=sampler.steps)
        indices = {"solver": self.solvers.index(steps) if steps in self.solvers else -1}
        for key, grids in self.grids.items():
            method = sampler.method(key)
            indices |= {} if method is None else grid_indices(key, grids, method)
        return indices

    def _in_one_respect(self, one: SamplerSettings, other: SamplerSettings) -> bool:
        apart = int((one.solver, one.steps) != (other.solver, other.steps))
        for key, grids in self.grids.items():
            apart += steps_apart(key, grids, one.method(key), other.method(key))
            if apart > 1:
                return False
        return apart == 1

    def _hypercube(self, base: SamplerSettings, count: int, rng: np.random.Generator) -> list[dict[str, int]]:
        """Rows of places in which the values of every setting are about equally frequent (McKay et al. 1979)."""
        options: dict[object, list[dict[str, int]]] = {}
        for key, grids in self.grids.items():
            strengths = [
                {key: number, f"{key}.{grid.leading}": i}
                for number, grid in enumerate(grids)
                for i in range(len(grid.axes[grid.leading]))
            ]
            options[key] = [{}, *strengths]
        options["solver"] = [{"solver": i} for i in range(len(self.solvers))]
        for key, grids in self.grids.items():
            for name, values in _other_axes(grids):
                options[key, name, values] = [{f"{key}.{name}": i} for i in range(len(values))]
        columns = {
            name: [choices[i] for i in rng.permutation(np.resize(range(len(choices)), count))]
            for name, choices in options.items()
        }
        return [self._row(base, {name: column[i] for name, column in columns.items()}) for i in range(count)]

    def _row(self, base: SamplerSettings, drawn: Mapping[object, dict[str, int]]) -> dict[str, int]:
        """The places that count, of those drawn for every setting."""
        row = dict(drawn["solver"])
        steps = self.solvers[row["solver"]]
        for key, grids in self.grids.items():
            if not drawn[key] or not _goes_with(key, grids, base, steps):
                continue
            grid = grids[drawn[key][key]]
            for name, values in grid.axes.items():
                row |= {f"{key}.{name}": 0} if len(values) == 1 else drawn.get((key, name, values), {})
            row |= drawn[key]
        return row


def _other_axes(grids: Sequence[Grid]) -> list[tuple[str, tuple[Any, ...]]]:
    """Settings beside the leading ones of which several values are searched, each list of values once."""
    axes = [
        (name, values)
        for grid in grids
        for name, values in grid.axes.items()
        if name != grid.leading and len(values) > 1
    ]
    return list(dict.fromkeys(axes))


@lru_cache(maxsize=256)
def _goes_with(key: str, grids: tuple[Grid, ...], base: SamplerSettings, steps: SolverSteps) -> bool:
    """Whether a method can be combined with a solver at all."""
    method = combinations(key, grids, base.method(key))[0]
    return method.conflict([], steps.of(base.plain()).chain_solver) is None


@dataclass(frozen=True)
class Candidate:
    """Sampler settings under a name.

    Attributes:
        name: A line for people, unique in a search.
        sampler: The settings.
    """

    name: str
    sampler: SamplerSettings


def baselines(base: SamplerSettings, *, by_prompts: bool = False) -> list[Candidate]:
    """Plain sampling, the settings that the papers publish, and those in use.

    Args:
        base: Those in use.
        by_prompts: Of a text-to-image backbone, whose baselines keep what makes a prompt obeyed, as `base` has it.
    """
    plain = base.plain(by_prompts=by_prompts)
    candidates = [Candidate(PLAIN, plain)]
    candidates += [Candidate(name, plain.guided(method)) for name, method in PUBLISHED.items()]
    known = {candidate.sampler for candidate in candidates}
    return candidates if base in known else [*candidates, Candidate(PRESENT, base)]


@lru_cache(maxsize=4)
def _candidates(space: CalibrationSpace, base: SamplerSettings, by_prompts: bool) -> tuple[Candidate, ...]:
    options = {key: [None, *combinations(key, grids, base.method(key))] for key, grids in space.grids.items()}
    compared = baselines(base, by_prompts=by_prompts)
    known = {candidate.sampler for candidate in compared if candidate.name in (PLAIN, PRESENT)}
    samplers: dict[SamplerSettings, None] = {}
    for steps in space.solvers:
        solver = steps.of(base.plain()).chain_solver
        for chosen in itertools.product(*options.values()):
            methods: dict[str, Any] = dict(zip(options, chosen, strict=True))
            present = [methods.get(key, base.method(key)) for key in METHODS]
            if combination_problem([method for method in present if method is not None], solver) is None:
                samplers[replace(base, solver=steps.solver, steps=steps.steps, **methods)] = None
    return (*compared, *(Candidate(describe(sampler), sampler) for sampler in samplers if sampler not in known))


def describe(sampler: SamplerSettings) -> str:
    """Settings in a line."""
    steps = SolverSteps(solver=sampler.solver, steps=sampler.steps)
    return ", ".join([steps.describe(), *(method.describe() for method in sampler.guidance)])


def common_particle_group(candidates: Sequence[Candidate]) -> int:
    """Consecutive sample indices that are whole particle groups of every candidate."""
    return math.lcm(*{candidate.sampler.particle_group for candidate in candidates})


def without_empty_grids(space: Mapping[str, Any]) -> dict[str, Any]:
    """A space as plain values, less what it neither searches nor would search by default.

    So a method that is added to the registry without grids of its own changes no recipe.
    """
    grids = {key: value for key, value in space.items() if key in METHODS and (value or declared(key))}
    listed = {
        key: [{name: axis for name, axis in grid.items() if axis} for grid in value] for key, value in grids.items()
    }
    return {key: value for key, value in space.items() if key not in METHODS} | listed
