"""Work units: draw (or take real images), score, judge, and store with a receipt."""

import json
import time
from dataclasses import asdict, dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from prefect import task
from prefect.logging import get_run_logger

from datasets.runs.runs import open_run
from datasets.runs.units import read_receipt, write_unit
from datasets.storage.store import Store
from minority.runtime.memory import peak_memory
from minority.sampling.draw import Scores
from minority.selection.diversity import projected
from minority.selection.judge import Verdicts
from tasks.augment.candidates import passed_filters
from tasks.augment.drawing import draw_candidates
from tasks.augment.planning import UnitBatch, UnitPlan
from tasks.augment.plans import open_plan
from tasks.augment.scoring import TRAINING_INDEX, score, score_quantiles
from tasks.config.runs import AugmentConfig
from tasks.execution.failures import TRIED_AGAIN
from tasks.execution.log_ids import log_ids
from tasks.inputs.workspace import Workspace, open_workspace

#: Columns whose quantiles are columns too, and what the judge calls them.
QUANTILES = {
    "minority_score": "minority_score",
    "negative_elbo": "negative_elbo",
    "knn_distance": "knn_distance",
    "realism": "realism",
    "lof": "lof",
    "rarity_score": "rarity",
    "copy_ratio": "copy_ratio",
    "realness": "realness",
    "label_probability": "label_probability",
    "label_margin": "label_margin",
}


@dataclass(frozen=True, kw_only=True)
class UnitWork:
    """What a worker did for one unit, for counters and the log.

    Attributes:
        unit: The unit.
        sampler: The plan's.
        device: "cpu" or "cuda".
        made: Samples made; 0 where the unit was there already.
        passed: Those that every filter let through.
        seconds: What they took.
        peak_memory: Bytes of the device that this process has had in use at most; 0 on the CPU.
    """

    unit: str
    sampler: str
    device: str
    made: int = 0
    passed: int = 0
    seconds: float = 0.0
    peak_memory: int = 0


@task(task_run_name="{batch.name}", **TRIED_AGAIN)
def generate_units(batch: UnitBatch, config: AugmentConfig) -> list[UnitWork]:
    """Make the units of a batch that are not there already. Images stay in this process; only a few figures leave it.

    The first unit that fails ends the task run; another attempt goes on from there.
    """
    workspace = open_workspace(config)
    store = open_run_store(workspace)
    plan = open_plan(batch.plan, workspace, store)
    done = []
    for number in range(batch.first, batch.first + batch.count):
        with log_ids(run=workspace.run_id, unit=plan[number].unit):
            done.append(make_unit(plan[number], workspace, store))
    with log_ids(run=workspace.run_id, unit=batch.name):
        made, seconds = sum(work.made for work in done), sum(work.seconds for work in done)
        get_run_logger().info("%d samples made in %.1f s, %.3g samples/s", made, seconds, made / max(seconds, 1e-9))
    return done


def open_run_store(workspace: Workspace) -> Store:
    """The run's own store, claimed for this recipe.

    Raises:
        RecipeMismatchError: Another recipe holds it.
        StoreError: It cannot be written.
    """
    return open_run(
        workspace.store,
        workspace.config.name,
        workspace.run_id,
        recipe=workspace.recipe,
        config=published_config(workspace.config),
    )


def published_config(config: AugmentConfig) -> dict[str, object]:
    """The settings as a run's files show them: without places of this machine."""
    content: dict[str, object] = config.model_dump(
        mode="json", exclude={"store", "device", "workers", "units_a_task", "downstream"}
    )
    return content


def is_done(plan: UnitPlan, store: Store, *, recipe: str) -> bool:
    """Whether the unit is whole in the store."""
    return read_receipt(store, plan.unit, recipe=recipe, num_samples=plan.num_samples) is not None


def make_unit(plan: UnitPlan, workspace: Workspace, store: Store) -> UnitWork:
    """Draw, score, judge and store one unit; a sound one is left alone."""
    if is_done(plan, store, recipe=workspace.recipe):
        return UnitWork(unit=plan.unit, sampler=plan.sampler, device=workspace.device)
    started = time.monotonic()
    images, rows = real_rows(plan, workspace) if plan.sampler == "none" else candidate_rows(plan, workspace)
    write_unit(store, plan.unit, images, rows, recipe=workspace.recipe)
    return UnitWork(
        unit=plan.unit,
        sampler=plan.sampler,
        device=workspace.device,
        made=plan.num_samples,
        passed=0 if plan.sampler == "none" else int(passed_filters(rows).sum()),
        seconds=time.monotonic() - started,
        peak_memory=peak_memory(workspace.device),
    )


def candidate_rows(plan: UnitPlan, workspace: Workspace) -> tuple[NDArray[np.uint8], pa.Table]:
    """Draw the candidates of a unit and judge each. Returns (N, H, W, C) uint8 and their rows."""
    config, real = workspace.config, workspace.real
    sampler = config.sampler if plan.sampler == "minority" else config.sampler.plain()
    planned_labels = [real.group_labels[group] for group in plan.groups]
    condition = None if workspace.backbone.num_classes is None else planned_labels
    drawn = draw_candidates(plan, workspace, sampler=sampler, labels=condition)
    images = drawn.images
    judged = judge_images(workspace, images, np.array(plan.groups), inherited=drawn.sources is not None)
    scores = score(workspace, images, indices=plan.indices, labels=np.array(planned_labels))
    prefix = "s" if plan.sampler == "minority" else "p"
    rows = _shared_columns(plan, workspace, groups=judged.groups, labels=judged.labels, scores=scores) | {
        "key": [f"{prefix}{index:08d}" for index in plan.indices],
        "source": ["synthetic"] * plan.num_samples,
        "sample_index": list(plan.indices),
        "seed": [config.seed] * plan.num_samples,
        "guidance": [json.dumps(asdict(sampler), sort_keys=True)] * plan.num_samples,
        "founder": drawn.founders,
        "evaluations": [drawn.evaluations] * plan.num_samples,
        "kept": [False] * plan.num_samples,
        "reason": ["baseline" if plan.sampler == "plain" else "not chosen yet"] * plan.num_samples,
    }
    rows |= _verdict_columns(workspace, judged)
    quantiles = judged.verdicts.quantiles | score_quantiles(workspace, scores)
    rows |= {
        f"{name}_quantile": quantiles[field].astype(np.float32)
        for name, field in QUANTILES.items()
        if field in quantiles
    }
    if drawn.sources is not None and config.edit is not None:
        rows["edited_source_id"] = [real.train.source_ids[position] for position in drawn.sources]
        rows["edited_fraction"] = np.full(plan.num_samples, config.edit.fraction, dtype=np.float32)
    return images, pa.table(rows)


@dataclass(frozen=True, eq=False)
class Judged:
    """Candidates with what they turned out to be.

    Attributes:
        groups: (N,) group of each: the one it was drawn for, or the one that was recognised.
        labels: (N,) the groups' labels.
        features: (N, D).
        verdicts: The judge's, with the labeller's word on the label where there is one.
    """

    groups: NDArray[np.int64]
    labels: NDArray[np.int64]
    features: NDArray[np.floating]
    verdicts: Verdicts


def judge_images(
    workspace: Workspace, images: NDArray[np.uint8], planned_groups: NDArray[np.int64], *, inherited: bool = False
) -> Judged:
    """Recognise groups where the backbone does not know them, and ask every filter.

    Args:
        workspace: The run.
        images: (N, H, W, C) uint8.
        planned_groups: (N,) the groups that they were drawn for.
        inherited: They are variants of real images and have these images' groups: a group is not given by the labeller
            then, but must be confirmed by it.
    """
    group_labels = np.array(workspace.real.group_labels)
    groups, confidence = planned_groups, None
    if workspace.needs_labeller:
        groups, confidence = workspace.labeller.label(images)
    recognised = groups
    if inherited:
        groups = planned_groups
    labels, features = group_labels[groups], workspace.extract(images)
    verdicts = workspace.judge.judge(features, labels, images=images)
    if confidence is not None:
        kept = confidence >= workspace.label_floor
        if inherited:
            kept &= recognised == planned_groups
        elif workspace.backbone.num_classes is not None:
            kept &= labels == group_labels[planned_groups]
        verdicts = replace(verdicts, label_agreement=confidence, label_kept=kept)
    return Judged(groups=groups, labels=labels, features=features, verdicts=verdicts)


def real_rows(plan: UnitPlan, workspace: Workspace) -> tuple[NDArray[np.uint8], pa.Table]:
    """Score real training images. Returns (N, H, W, C) uint8 and their rows, which have no verdicts."""
    positions = np.array(plan.indices)
    images = workspace.train_images[positions]
    train, own = workspace.real.train, workspace.judge.reference.own
    labels = train.labels[positions]
    scores = score(workspace, images, indices=[TRAINING_INDEX + i for i in plan.indices], labels=labels)
    rows = _shared_columns(plan, workspace, groups=np.array(plan.groups), labels=labels, scores=scores) | {
        "key": [f"real-{position:06d}" for position in plan.indices],
        "source": ["real"] * plan.num_samples,
        "source_id": [train.source_ids[i] for i in positions],
        "knn_distance": own.knn_distance[positions].astype(np.float32),
        "nearest_distance": own.nearest_distance[positions].astype(np.float32),
        "nearest_source_id": [train.source_ids[i] for i in own.nearest[positions]],
        "realism": own.realism[positions].astype(np.float32),
        "lof": own.lof[positions].astype(np.float32),
        "rarity_score": own.rarity[positions].astype(np.float32),
        "copy_ratio": own.copy_ratio[positions].astype(np.float32),
        "kept": [workspace.config.publish.real] * plan.num_samples,
        "reason": ["real"] * plan.num_samples,
    }
    return images, pa.table(rows)


def _shared_columns(
    plan: UnitPlan, workspace: Workspace, *, groups: NDArray[np.int64], labels: NDArray[np.int64], scores: Scores
) -> dict[str, object]:
    names = workspace.real.train.class_names
    return {
        "sampler": [plan.sampler] * plan.num_samples,
        "round": pa.array([plan.round] * plan.num_samples, pa.int32()),
        "unit": [plan.unit] * plan.num_samples,
        "label": labels.astype(np.int32),
        "label_name": [names[label] for label in labels],
        "group": [workspace.real.groups[group] for group in groups],
        "minority_score": scores.minority_score.astype(np.float32),
        "negative_elbo": scores.negative_elbo.astype(np.float32),
    }


def _verdict_columns(workspace: Workspace, judged: Judged) -> dict[str, object]:
    verdicts = judged.verdicts
    neighbourhood = verdicts.neighbourhood
    ids = workspace.real.train.source_ids
    columns: dict[str, object] = {
        "nearest_source_id": [ids[i] for i in neighbourhood.nearest],
        "rare": verdicts.rare,
        "valid": verdicts.valid,
        "new": verdicts.new,
        "label_kept": verdicts.label_kept,
        "fingerprint": list(projected(judged.features)),
    }
    scores = {
        "knn_distance": neighbourhood.knn_distance,
        "nearest_distance": neighbourhood.nearest_distance,
        "realism": neighbourhood.realism,
        "lof": neighbourhood.lof,
        "rarity_score": neighbourhood.rarity,
        "copy_ratio": neighbourhood.copy_ratio,
        "label_agreement": verdicts.label_agreement,
        "realness": None if verdicts.opinion is None else verdicts.opinion.realness,
        "label_probability": verdicts.label_probability,
        "label_margin": verdicts.label_margin,
    }
    return columns | {name: values.astype(np.float32) for name, values in scores.items() if values is not None}
