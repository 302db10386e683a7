"""The rows of a unit: candidates with their verdicts, and real images."""

import json
import math
from collections.abc import Sequence
from dataclasses import fields
from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from minority.runtime.image_arrays import choose_images
from minority.sampling.diffusion_classifier import class_errors, class_probabilities
from minority.sampling.draw import Scores
from minority.selection.diversity import projected
from minority.selection.filter_contract import Verdicts
from minority.selection.policy import FILTERS
from tasks.augment.drawing import draw_candidates
from tasks.augment.evaluating import Evaluated, evaluate_images
from tasks.augment.planning import UnitPlan
from tasks.inputs.factor_filter import FactorFilter
from tasks.inputs.scoring import TRAINING_INDEX, score, score_quantiles
from tasks.inputs.workspace import Workspace

#: Columns whose quantiles are columns too, and what the filter calls them.
QUANTILES = {
    "minority_score": "minority_score",
    "negative_elbo": "negative_elbo",
    "knn_distance": "knn_distance",
    "realism": "realism",
    "lof": "lof",
    "rarity_score": "rarity",
    "copy_ratio": "copy_ratio",
    "p_real": "p_real",
    "label_probability": "label_probability",
    "label_margin": "label_margin",
}


def candidate_rows(plan: UnitPlan, workspace: Workspace) -> tuple[NDArray[np.uint8], pa.Table]:
    """Draw the candidates of a unit and evaluate each. Returns (N, H, W, C) uint8 and their rows."""
    config, real = workspace.config, workspace.real
    sampler = (
        config.sampler
        if plan.sampler == "minority"
        else config.sampler.plain(by_prompts=workspace.backbone.prompts is not None)
    )
    planned_labels = [real.group_labels[group] for group in plan.groups]
    condition = workspace.condition_of(labels=planned_labels, groups=list(plan.groups))
    drawn = draw_candidates(plan, workspace, sampler=sampler, labels=condition)
    images = drawn.images
    evaluated = evaluate_images(workspace, images, np.array(plan.groups), inherited=drawn.sources is not None)
    scores = score(workspace, images, indices=plan.indices, condition=condition)
    prefix = "s" if plan.sampler == "minority" else "p"
    rows = _shared_columns(plan, workspace, groups=evaluated.groups, labels=evaluated.labels, scores=scores) | {
        "key": [f"{prefix}{index:08d}" for index in plan.indices],
        "source": ["synthetic"] * plan.num_samples,
        "sample_index": list(plan.indices),
        "seed": [config.seed] * plan.num_samples,
        "guidance": [json.dumps(sampler.to_dict(), sort_keys=True)] * plan.num_samples,
        "root_ancestor": drawn.root_ancestors,
        "evaluations": [drawn.evaluations] * plan.num_samples,
        "kept": [False] * plan.num_samples,
        "reason": ["baseline" if plan.sampler == "plain" else "not chosen yet"] * plan.num_samples,
    }
    rows |= _verdict_columns(workspace, evaluated)
    rows |= _zero_shot_columns(workspace, images, indices=plan.indices, labels=evaluated.labels)
    quantiles = evaluated.verdicts.quantiles | score_quantiles(workspace, scores)
    rows |= {
        f"{name}_quantile": quantiles[field].astype(np.float32)
        for name, field in QUANTILES.items()
        if field in quantiles
    }
    if drawn.sources is not None and config.edit is not None:
        rows["edited_source_id"] = [real.train.source_ids[position] for position in drawn.sources]
        rows["edited_fraction"] = np.full(plan.num_samples, config.edit.fraction, dtype=np.float32)
    rows |= _source_groups(workspace, plan.num_samples, drawn.sources)
    if workspace.backbone.prompts is not None and condition is not None:
        # A branch goes on with its root ancestor's prompt.
        rows["prompt"] = workspace.backbone.prompts.chosen(config.seed, drawn.root_ancestors.tolist(), condition)
    return images, pa.table(rows)


def real_rows(plan: UnitPlan, workspace: Workspace) -> tuple[NDArray[np.uint8], pa.Table]:
    """Score real training images. Returns (N, H, W, C) uint8 and their rows, which have no verdicts."""
    positions = np.array(plan.indices)
    images = workspace.train_images[positions]
    train, of_training = workspace.real.train, workspace.candidate_filter.reference.of_training
    labels = train.labels[positions]
    condition = workspace.condition_of(labels=labels.tolist(), groups=list(plan.groups))
    scores = _scores_of_real(workspace, images, positions, condition=condition)
    rows = _shared_columns(plan, workspace, groups=np.array(plan.groups), labels=labels, scores=scores) | {
        "key": [f"real-{position:06d}" for position in plan.indices],
        "source": ["real"] * plan.num_samples,
        "source_id": [train.source_ids[i] for i in positions],
        "knn_distance": of_training.knn_distance[positions].astype(np.float32),
        "nearest_distance": of_training.nearest_distance[positions].astype(np.float32),
        "nearest_source_id": [train.source_ids[i] for i in of_training.nearest[positions]],
        "realism": of_training.realism[positions].astype(np.float32),
        "lof": of_training.lof[positions].astype(np.float32),
        "rarity_score": of_training.rarity[positions].astype(np.float32),
        "copy_ratio": of_training.copy_ratio[positions].astype(np.float32),
        "kept": [workspace.config.publish.real] * plan.num_samples,
        "reason": ["real"] * plan.num_samples,
    }
    rows |= _zero_shot_columns(workspace, images, indices=[TRAINING_INDEX + i for i in plan.indices], labels=labels)
    rows |= _source_groups(workspace, plan.num_samples)
    if workspace.factor_filter is not None:  # so that all units of a run have the same columns
        rows |= dict.fromkeys(("shows_label", "shows_attributes"), pa.nulls(plan.num_samples, pa.bool_()))
    return images, pa.table(rows)


def _scores_of_real(
    workspace: Workspace, images: NDArray[np.uint8], positions: NDArray[np.int64], *, condition: list[int] | None
) -> Scores:
    """Scores of real images; NaN for those that are not among the `scores.real_images` that are scored."""
    most, count = workspace.config.scores.real_images, len(workspace.real.train)
    chosen = np.arange(len(positions))
    if most is not None and most < count:
        chosen = np.flatnonzero(np.isin(positions, _scored_images(count, most, seed=workspace.config.seed)))
    scores = Scores(*(np.full(len(positions), np.nan, dtype=np.float32) for _ in fields(Scores)))
    if len(chosen):
        scored = score(
            workspace,
            images[chosen],
            indices=[TRAINING_INDEX + int(position) for position in positions[chosen]],
            condition=None if condition is None else [condition[i] for i in chosen],
        )
        for field in fields(Scores):
            getattr(scores, field.name)[chosen] = getattr(scored, field.name)
    return scores


@lru_cache(maxsize=2)
def _scored_images(count: int, most: int, *, seed: int) -> NDArray[np.int64]:
    """Positions of those that are scored of so many real images: drawn once, and not anew for every unit."""
    return choose_images(count, most=most, seed=[seed, count])


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


def _source_groups(
    workspace: Workspace, num_samples: int, sources: NDArray[np.int64] | None = None
) -> dict[str, object]:
    """The groups that images were moved from, in every unit of a run that moves any; null where one was not moved."""
    edit, groups = workspace.config.edit, workspace.real.train.groups
    if edit is None or edit.sources == "group":
        return {}
    moved = pa.nulls(num_samples, pa.string()) if sources is None else [groups[position] for position in sources]
    return {"edited_source_group": moved}


def _zero_shot_columns(
    workspace: Workspace, images: NDArray[np.uint8], *, indices: Sequence[int], labels: NDArray[np.int64]
) -> dict[str, object]:
    """What the backbone takes the images for, without a training image; nothing where it is not asked."""
    settings = workspace.config.scores.zero_shot
    if settings is None:
        return {}
    errors = class_errors(
        workspace.backbone,
        images,
        seed=workspace.config.seed,
        indices=indices,
        settings=settings,
        num_classes=len(workspace.real.train.class_names),
        device=workspace.device,
    )
    probabilities = class_probabilities(errors, dimensions=math.prod(workspace.backbone.state_shape))
    answers = probabilities.argmax(axis=1)
    return {
        "zero_shot_label": answers.astype(np.int32),
        "zero_shot_probability": probabilities[np.arange(len(labels)), labels].astype(np.float32),
        "zero_shot_kept": answers == labels,
    }


def _shown(factor_filter: FactorFilter, verdicts: Verdicts) -> dict[str, object]:
    assert verdicts.shows_values is not None, "a run with a factor filter asks it"
    attributes = verdicts.shows_values[:, 1:] if factor_filter.tells_label else verdicts.shows_values
    label = verdicts.shows_values[:, 0] if factor_filter.tells_label else np.ones(len(attributes), dtype=bool)
    return {"shows_label": label, "shows_attributes": attributes.all(axis=1)}


def _verdict_columns(workspace: Workspace, evaluated: Evaluated) -> dict[str, object]:
    verdicts = evaluated.verdicts
    neighbourhood = verdicts.neighbourhood
    ids = workspace.real.train.source_ids
    columns: dict[str, object] = {} if workspace.factor_filter is None else _shown(workspace.factor_filter, verdicts)
    columns |= {
        "nearest_source_id": [ids[i] for i in neighbourhood.nearest],
        **{name: getattr(verdicts, name) for name in FILTERS},
        "random_projection": list(projected(evaluated.features)),
    }
    scores = {
        "knn_distance": neighbourhood.knn_distance,
        "nearest_distance": neighbourhood.nearest_distance,
        "realism": neighbourhood.realism,
        "lof": neighbourhood.lof,
        "rarity_score": neighbourhood.rarity,
        "copy_ratio": neighbourhood.copy_ratio,
        "label_agreement": verdicts.label_agreement,
        "labeller_confidence": verdicts.labeller_confidence,
        "p_real": None if verdicts.output is None else verdicts.output.p_real,
        "label_probability": verdicts.label_probability,
        "label_margin": verdicts.label_margin,
    }
    return columns | {name: values.astype(np.float32) for name, values in scores.items() if values is not None}
