"""Work units: draw (or take real images), score, evaluate, and store with a receipt."""

import time
from dataclasses import dataclass

from prefect import task
from prefect.logging import get_run_logger

from datasets.runs.units import read_receipt, write_unit
from datasets.storage.store import Store
from minority.runtime.memory import peak_memory
from tasks.augment.candidates import passed_policy
from tasks.augment.planning import UnitBatch, UnitPlan
from tasks.augment.plans import open_plan
from tasks.augment.rows import candidate_rows, real_rows
from tasks.config.runs import AugmentConfig
from tasks.execution.failures import TRIED_AGAIN
from tasks.execution.log_ids import log_ids
from tasks.inputs.run_store import open_run_store
from tasks.inputs.workspace import Workspace, open_workspace


@dataclass(frozen=True, kw_only=True)
class UnitWork:
    """What a worker did for one unit, for counters and the log.

    Attributes:
        unit: The unit.
        sampler: The plan's.
        device: "cpu" or "cuda".
        made: Samples made; 0 where the unit was there already.
        passed: Those that the selection policy lets through, among those of this unit.
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
    store = open_run_store(workspace.run)
    plan = open_plan(batch.plan, workspace.run, store)
    done = []
    for number in range(batch.first, batch.first + batch.count):
        with log_ids(run=workspace.run.run_id, unit=plan[number].unit):
            done.append(make_unit(plan[number], workspace, store))
    with log_ids(run=workspace.run.run_id, unit=batch.name):
        made, seconds = sum(work.made for work in done), sum(work.seconds for work in done)
        get_run_logger().info("%d samples made in %.1f s, %.3g samples/s", made, seconds, made / max(seconds, 1e-9))
    return done


def is_done(plan: UnitPlan, store: Store, *, recipe: str) -> bool:
    """Whether the unit is whole in the store."""
    return read_receipt(store, plan.unit, recipe=recipe, num_samples=plan.num_samples) is not None


def make_unit(plan: UnitPlan, workspace: Workspace, store: Store) -> UnitWork:
    """Draw, score, evaluate and store one unit; a sound one is left alone."""
    if is_done(plan, store, recipe=workspace.run.recipe):
        return UnitWork(unit=plan.unit, sampler=plan.sampler, device=workspace.device)
    started = time.monotonic()
    images, rows = real_rows(plan, workspace) if plan.sampler == "real" else candidate_rows(plan, workspace)
    write_unit(store, plan.unit, images, rows, recipe=workspace.run.recipe)
    return UnitWork(
        unit=plan.unit,
        sampler=plan.sampler,
        device=workspace.device,
        made=plan.num_samples,
        passed=0 if plan.sampler == "real" else int(passed_policy(rows, workspace.config.selection.policy).sum()),
        seconds=time.monotonic() - started,
        peak_memory=peak_memory(workspace.device),
    )
