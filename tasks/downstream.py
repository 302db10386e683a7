"""Downstream classifiers: what the images are worth to a training job."""

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from prefect import task

from datasets.canonical import canonical_json, parse_json
from datasets.store import Store
from datasets.units import read_unit
from minority.arms import Arm, build_arms, run_arm
from tasks.candidates import choose_candidates, read_rows
from tasks.config import AugmentConfig
from tasks.failures import TRIED_AGAIN
from tasks.generation import open_run_store
from tasks.planning import UnitPlan, quotas
from tasks.plans import run_plans
from tasks.workspace import Workspace, open_workspace

ARMS = ("real", "oversampled", "real+plain", "real+minority")


def trial_path(config: AugmentConfig, arm: str, seed: int) -> str:
    """Where the result of one classifier lies in the run's store; other settings lie elsewhere."""
    settings = config.downstream.model_dump(mode="json", exclude={"seeds"})
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    return f"downstream/{digest}/{arm.replace('+', '-')}-{seed:03d}.json"


def planned_trials(config: AugmentConfig) -> list[tuple[str, int]]:
    """Every (arm, seed) of a run."""
    arms = ARMS if config.plan.baseline else tuple(arm for arm in ARMS if arm != "real+plain")
    return [(arm, seed) for seed in range(config.downstream.seeds) for arm in arms]


@task(task_run_name="{arm}-seed-{seed}", **TRIED_AGAIN)
def run_trial(arm: str, seed: int, config: AugmentConfig, rounds: int) -> str:
    """Train one classifier unless its result is there already. Returns where the result lies."""
    workspace = open_workspace(config)
    store = open_run_store(workspace)
    path = trial_path(config, arm, seed)
    if not store.exists(path):
        real = workspace.real
        evaluation = run_arm(
            _arms(workspace, store.root, rounds)[arm],
            seed,
            test_images=real.test.images(range(len(real.test))),
            test_labels=real.test.labels,
            num_classes=len(real.test.class_names),
            settings=config.downstream.classifier,
            device=workspace.device,
        )
        rows = evaluation.rows(arm, seed=seed)
        store.write(path, canonical_json({"rows": rows.to_dict(orient="records")}))
    return path


def read_results(config: AugmentConfig, store: Store) -> pd.DataFrame | None:
    """Result rows (arm, seed, metric, value) of all planned classifiers; None where none is planned."""
    trials = planned_trials(config)
    if not trials:
        return None
    paths = [trial_path(config, arm, seed) for arm, seed in trials]
    return pd.DataFrame([row for path in paths for row in parse_json(store.read(path), name=path)["rows"]])


@lru_cache(maxsize=2)
def _arms(workspace: Workspace, run_url: str, rounds: int) -> dict[str, Arm]:
    store = Store(run_url)
    plans = run_plans(workspace, store, rounds=rounds)
    synthetic = {
        sampler: _synthetic(workspace, store, [unit for plan in plans if plan.sampler == sampler for unit in plan])
        for sampler in ("plain", "minority")
        if any(plan.sampler == sampler for plan in plans) or sampler == "minority"
    }
    arms = build_arms(
        workspace.train_images,
        workspace.real.train.labels,
        synthetic=synthetic,
        num_classes=len(workspace.real.train.class_names),
    )
    return {arm.name: arm for arm in arms}


def _synthetic(
    workspace: Workspace, store: Store, plans: Sequence[UnitPlan]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The images of a sampler that fill the quotas: the chosen candidates, or all plain samples."""
    rows = read_rows(store, plans)
    if rows is None:
        shape = (0, *workspace.real.train.image_shape)
        return np.zeros(shape, dtype=np.uint8), np.zeros(0, dtype=np.int64)
    images = np.concatenate([read_unit(store, plan.unit)[0] for plan in plans])
    labels = rows["label"].to_numpy().astype(np.int64)
    if plans[0].sampler == "plain":
        return images, labels
    rows = choose_candidates(
        rows,
        groups=workspace.real.groups,
        wanted=quotas(workspace.real, workspace.config.plan),
        spacing=workspace.spacing,
    )
    kept = rows["kept"].to_numpy()
    return images[kept], labels[kept]
