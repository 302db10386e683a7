"""The search for sampler settings: measuring candidates, keeping what is measured, and writing down what was found."""

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from prefect import task
from prefect.logging import get_run_logger

from datasets.storage.checked import DamagedError, checked_json, parse_checked_json
from datasets.storage.store import Store
from minority.calibration.outcome import OBJECTIVES, Measured, Objective, best
from minority.calibration.search import Draw, least_budget, next_rung, rung_sizes, whole
from minority.calibration.search import plan_rung as plan_draws
from minority.calibration.space import Candidate, baselines, common_particle_group
from minority.guidance.method import TrainedMethod
from minority.sampling.cost import expected_cost
from minority.sampling.draw import draw
from minority.sampling.settings import SamplerSettings
from minority.selection.diversity import mean_nearest_distance
from tasks.augment.evaluating import evaluate_images
from tasks.config.runs import CalibrateConfig
from tasks.errors import InputError
from tasks.execution.failures import TRIED_AGAIN
from tasks.inputs.guidance_parts import methods_to_learn, open_parts
from tasks.inputs.workspace import Workspace, open_workspace

#: Verification draws from indices that no search uses.
FRESH = 2**40


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A task of the calibration: one candidate's draws.

    Attributes:
        candidate: Its position among the candidates.
        first: First sample index.
        count: How many.
    """

    candidate: int
    first: int
    count: int


def candidates_of(config: CalibrateConfig) -> Sequence[Candidate]:
    """Every candidate that the search could try, the baselines first."""
    return config.calibration.space.candidates(config.sampler, by_prompts=_by_prompts(config))


def plan_rung(config: CalibrateConfig, done: Sequence[Measurement], *, rung: int) -> list[Measurement]:
    """The measurements of one rung of the search, none after the last.

    Args:
        config: The calibration.
        done: The measurements of all rungs before.
        rung: 0, 1, ...
    """
    settings, candidates, measured = config.calibration, candidates_of(config), read_measured(config, done)
    start = _start(config)
    sizes = rung_sizes(settings, candidates=len(start))
    if rung >= len(sizes):
        return []
    most = max(counts.samples for counts in measured)

    def untried(parent: int) -> list[int]:
        near = settings.space.neighbours(config.sampler, parent, seed=config.seed, by_prompts=_by_prompts(config))
        return [i for i in near if measured[i].samples == 0]

    survivors = [i for i, counts in enumerate(measured) if counts.samples == most]
    if rung > 0:
        survivors = next_rung(settings, measured, survivors, to=sizes[rung], untried=untried)
    draws = plan_draws(
        settings,
        _costs(config, measured),
        measured,
        survivors if rung > 0 else start,
        rungs=len(sizes),
        first=max((order.first + order.count for order in done), default=0),
        particle_group=common_particle_group(candidates),
        round_size=_round_size(config),
    )
    return _cut(draws, size=whole(config.unit_size, particle_group=common_particle_group(candidates)))


def winners(config: CalibrateConfig, searched: Sequence[Measured]) -> dict[Objective, int | None]:
    """The best candidate under either objective; None where none is sure to reach the floors."""
    floors = config.calibration.floors
    return {objective: best(floors, searched, objective=objective) for objective in OBJECTIVES}


def plan_verification(config: CalibrateConfig, done: Sequence[Measurement]) -> list[Measurement]:
    """Measurements of both winners and the baselines on indices that the search did not use."""
    candidates, measured = candidates_of(config), read_measured(config, done)
    costs = _costs(config, measured)
    winning = [i for i in winners(config, measured).values() if i is not None]
    chosen = sorted({*range(len(baselines(config.sampler, by_prompts=_by_prompts(config)))), *winning})
    budget = config.calibration.budget * config.calibration.verification
    if budget == 0:
        return []
    particle_group, round_size = common_particle_group(candidates), _round_size(config)
    count = whole(budget / sum(costs[i] for i in chosen), particle_group=particle_group, round_size=round_size)
    first = math.ceil(FRESH / round_size) * round_size
    return _cut([Draw(i, first, count) for i in chosen], size=whole(config.unit_size, particle_group=particle_group))


def check_budget(config: CalibrateConfig) -> None:
    """Refuse a budget that would be overdrawn by one particle group for everybody who starts.

    Raises:
        InputError: Naming the least budget.
    """
    settings, candidates = config.calibration, candidates_of(config)
    start = _start(config)
    backbone = open_workspace(config.augment()).backbone
    costs = [expected_cost(candidates[i].sampler, backbone) for i in start]
    least = least_budget(settings, costs, particle_group=common_particle_group(candidates))
    if settings.budget < least:
        raise InputError(
            f"calibration.budget is {settings.budget} denoiser evaluations, but its first rung has {len(start)} "
            f"candidates; raise it to {least} at least, or lower calibration.candidates."
        )


def methods_of(config: CalibrateConfig) -> list[TrainedMethod]:
    """The guidance methods among the candidates that learn before they are measured."""
    return methods_to_learn(candidate.sampler for candidate in candidates_of(config))


@task(task_run_name="candidate-{order.candidate:03d}-{order.first}", **TRIED_AGAIN)
def measure_candidate(order: Measurement, config: CalibrateConfig) -> str:
    """Draw and evaluate one candidate's samples unless that is done. Returns where the counts lie."""
    measured = measured_once(order, config)
    get_run_logger().info("candidate %d: %d samples, %d passed", order.candidate, measured.samples, measured.passed)
    return _path(order)


def measured_once(order: Measurement, config: CalibrateConfig) -> Measured:
    """One measurement: from the store where it lies already, and is sound."""
    workspace = open_workspace(config.augment())
    store, path = calibration_store(workspace, config), _path(order)
    try:
        return _stored(store, path)
    except FileNotFoundError:
        pass
    except DamagedError as error:
        logging.getLogger(__name__).warning("%s The samples are drawn and counted again.", error)
    candidates, indices = candidates_of(config), range(order.first, order.first + order.count)
    # One particle group for all, so that all share the groups too.
    measured = measure(
        workspace, candidates[order.candidate].sampler, indices, particle_group=common_particle_group(candidates)
    )
    store.write(path, checked_json(asdict(measured)))
    return measured


def round_robin_groups(
    workspace: Workspace, indices: Sequence[int], *, particle_group: int
) -> tuple[NDArray[np.int64], list[int] | None]:
    """Groups of samples, every group equally often and a particle group in one group; labels where the backbone takes
    any.
    """
    real = workspace.real
    groups = np.array([index // particle_group % len(real.groups) for index in indices])
    return groups, workspace.condition_of(labels=[real.group_labels[group] for group in groups], groups=groups.tolist())


def measure(
    workspace: Workspace, sampler: SamplerSettings, indices: Sequence[int], *, particle_group: int = 1
) -> Measured:
    """Draw samples, the groups in turn, and count what the filters let through.

    Args:
        workspace: Backbone, real data and filter.
        sampler: How to draw.
        indices: Of the samples.
        particle_group: Consecutive indices that are of one group; the sampler's own particle groups are so anyway.
    """
    groups, labels = round_robin_groups(
        workspace, indices, particle_group=math.lcm(particle_group, sampler.particle_group)
    )
    drawn = draw(
        workspace.backbone,
        seed=workspace.config.seed,
        indices=indices,
        labels=labels,
        settings=sampler,
        reference=workspace.candidate_filter.reference,
        extract=workspace.extract,
        parts=open_parts(workspace, sampler.guidance),
        device=workspace.device,
    )
    evaluated = evaluate_images(workspace, drawn.images, groups)
    verdicts = evaluated.verdicts
    return Measured(
        samples=len(indices),
        rare=int(verdicts.rare.sum()),
        valid=int(verdicts.valid.sum()),
        new=int(verdicts.new.sum()),
        label_kept=int(verdicts.label_kept.sum()),
        passed=int(verdicts.passed_by(workspace.config.selection.policy, evaluated.groups).sum()),
        evaluations=drawn.evaluations * len(indices),
        copies=drawn.copies,
        diversity=diversity_of(workspace, evaluated.features),
    )


def read_measured(config: CalibrateConfig, orders: Sequence[Measurement]) -> list[Measured]:
    """What is known about every candidate after these measurements.

    Raises:
        DamagedError: A measurement in the store is damaged; `measured_once` makes it again.
    """
    store = calibration_store(open_workspace(config.augment()), config)
    measured = [Measured() for _ in candidates_of(config)]
    for order in orders:
        path = _path(order)
        measured[order.candidate] += _stored(store, path)
    return measured


def _stored(store: Store, path: str) -> Measured:
    counts = parse_checked_json(store.read(path), name=store.url(path))
    # Counted under a former name before.
    return Measured(**{"copies" if name == "siblings" else name: value for name, value in counts.items()})


def calibration_store(workspace: Workspace, config: CalibrateConfig) -> Store:
    """Where one calibration keeps what it measures and finds."""
    recipe = config.recipe(backbone_identity=workspace.backbone.identity, real_digest=workspace.real.digest)
    return Store(config.store).child(config.name).child("calibrations").child(recipe)


def _start(config: CalibrateConfig) -> list[int]:
    """The candidates that the search starts with."""
    settings = config.calibration
    return settings.space.start(
        config.sampler, limit=settings.candidates, seed=config.seed, by_prompts=_by_prompts(config)
    )


def _by_prompts(config: CalibrateConfig) -> bool:
    """Whether a text-to-image backbone draws, whose plain samples keep classifier-free guidance."""
    return config.backbone.prompts is not None


def _costs(config: CalibrateConfig, measured: Sequence[Measured]) -> list[float]:
    """Denoiser evaluations a sample: as measured, or as expected where nothing is measured."""
    backbone = open_workspace(config.augment()).backbone
    return [
        counts.evaluations / counts.samples if counts.samples else expected_cost(candidate.sampler, backbone)
        for candidate, counts in zip(candidates_of(config), measured, strict=True)
    ]


def _cut(draws: Sequence[Draw], *, size: int) -> list[Measurement]:
    """Draws cut into tasks of bounded size."""
    return [
        Measurement(candidate=draw.candidate, first=first, count=min(size, draw.first + draw.count - first))
        for draw in draws
        for first in range(draw.first, draw.first + draw.count, size)
    ]


def _round_size(config: CalibrateConfig) -> int:
    """Samples in which every group has one particle group."""
    return common_particle_group(candidates_of(config)) * len(open_workspace(config.augment()).real.groups)


def _path(order: Measurement) -> str:
    return f"measured/{order.candidate:03d}-{order.first}-{order.count}.json"


def diversity_of(workspace: Workspace, features: NDArray[np.floating]) -> float | None:
    """Mean distance to the nearest other sample, over that of as many real training images."""
    real = workspace.candidate_filter.reference.features
    count = min(len(real), len(features))
    if count < 2:
        return None
    some = np.random.default_rng(0).permutation(len(real))[:count]
    apart = mean_nearest_distance(real[some])
    return mean_nearest_distance(features[:count]) / apart if apart > 0 else None
