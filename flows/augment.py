"""The main flow: from a preset to a published, balanced, verified dataset with a report."""

from functools import partial
from typing import Any

from prefect import flow

from tasks.candidates import choose_candidates, read_rows, tally_candidates
from tasks.capacity import Demand
from tasks.checks import check_inputs
from tasks.config import AugmentConfig, placed
from tasks.counters import count_unit
from tasks.downstream import planned_trials, run_trial
from tasks.engine import fan_out, task_runner
from tasks.generation import generate_unit, open_run_store
from tasks.planning import UnitPlan, plan_baseline, plan_real, plan_round, quotas
from tasks.presets import validate
from tasks.progress import stage
from tasks.publishing import publish_run
from tasks.reporting import RunSummary, write_report
from tasks.running import running
from tasks.workspace import Workspace


@flow(name="augment", task_runner=task_runner(), validate_parameters=True)
def augment(config: AugmentConfig, overrides: dict[str, Any] | None = None) -> RunSummary:
    """Fill every group of a dataset up to its quota with rare, real-looking, new samples, and publish it.

    Args:
        config: The run. A preset of prefect.yaml, or your own.
        overrides: Single settings to change, dotted: {"seed": 3, "sampler.self_guidance.scale": 2}.
    """
    config = placed(validate(AugmentConfig, config.model_dump(mode="json"), overrides=overrides or {}))
    workspace = check_inputs(config)
    with running(workspace):
        plans = generate(workspace)
        manifest = publish_run(config, plans)
        train_downstream(config, plans)
        return write_report(config, manifest)


def generate(workspace: Workspace) -> list[UnitPlan]:
    """Draw rounds of candidates until quotas are full or the budget is spent. Returns the plans of all units."""
    config, real = workspace.config, workspace.real
    wanted = quotas(real, config.plan)
    store = open_run_store(workspace)
    plans = plan_real(config.plan, real)
    draw(plans, config, what="real images")
    candidates: list[UnitPlan] = []
    rows, drawn, round_number = None, 0, 0
    while units := plan_round(
        config.plan,
        tally_candidates(rows, groups=real.groups, wanted=wanted),
        round_number=round_number,
        first_index=drawn,
        wanted=wanted,
    ):
        if round_number == 0 and config.plan.baseline:
            baseline = plan_baseline(config.plan, units, wanted)
            draw(baseline, config, what="baseline")
            plans += baseline
        draw(units, config, what=f"round {round_number}")
        candidates += units
        drawn += sum(unit.num_samples for unit in units)
        rows = read_rows(store, candidates)
        rows = choose_candidates(rows, groups=real.groups, wanted=wanted, spacing=workspace.spacing)
        round_number += 1
    return plans + candidates


def draw(units: list[UnitPlan], config: AugmentConfig, *, what: str) -> None:
    """Make the units of one stage; a failed one does not stop the others."""
    with stage(what, unit="samples") as on_done:
        fan_out(
            partial(generate_unit.submit, config=config),
            units,
            what="units",
            name=lambda unit: unit.unit,
            size=lambda unit: unit.num_samples,
            demand=Demand(workers=config.workers, device=config.device),
            on_done=on_done,
            on_result=partial(count_unit, dataset=config.name),
        )


def train_downstream(config: AugmentConfig, plans: list[UnitPlan]) -> None:
    """Train the classifiers of every arm and seed."""
    trials = planned_trials(config)
    if trials:
        with stage("classifiers", unit="classifiers") as on_done:
            fan_out(
                lambda trial: run_trial.submit(arm=trial[0], seed=trial[1], config=config, plans=plans),
                trials,
                what="classifiers",
                name=lambda trial: f"{trial[0]} seed {trial[1]}",
                demand=Demand(workers=config.workers, device=config.device),
                on_done=on_done,
            )
