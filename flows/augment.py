"""The main flow: from a preset to a published, balanced, verified dataset with a report."""

from functools import partial
from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Cancelled

from flows.downstream import train_arms
from tasks.augment.candidates import Candidates
from tasks.augment.counters import count_units
from tasks.augment.in_use import running
from tasks.augment.learning import TrainedMethod, learn_guidance
from tasks.augment.planning import RoundPlan, batches, pilot_failed, plan_baseline, plan_real, plan_round, quotas
from tasks.augment.plans import load_or_create_plan
from tasks.augment.publishing import publish_run
from tasks.augment.units import generate_units
from tasks.checks import account_of_images, check_inputs
from tasks.config.form import ConfigForm, OverridesForm
from tasks.config.presets import validate
from tasks.config.runs import AugmentConfig, with_resolved_store
from tasks.downstream.trainings import has_arms
from tasks.execution.capacity import Demand
from tasks.execution.fan_out import fan_out, task_runner
from tasks.execution.progress import stage
from tasks.execution.run_names import name_run
from tasks.execution.warning import warn
from tasks.inputs.feature_parts import FeaturePart, feature_parts, make_features
from tasks.inputs.fitting import fit_once
from tasks.inputs.guidance_parts import methods_to_learn
from tasks.inputs.run_store import open_run_store
from tasks.inputs.workspace import Workspace, open_workspace
from tasks.report.publish import RunSummary, write_report
from tasks.review.approval import Rejection, require_resumable, wait_for_approval

_FORM = ConfigForm(AugmentConfig)


@flow(name="augment", flow_run_name="augment {config.name}", task_runner=task_runner(), validate_parameters=True)
def augment(
    config: Annotated[AugmentConfig, _FORM], overrides: Annotated[dict[str, Any] | None, OverridesForm(_FORM)] = None
) -> RunSummary | State[Any]:
    """Fill every group of a dataset up to its quota with rare, real-looking, new samples, and publish it.

    Args:
        config: The run. A preset of prefect.yaml, or your own.
        overrides: Single settings to change, dotted: {"seed": 3, "sampler.self_guidance.scale": 2}.

    Returns:
        What was published; a cancelled state where somebody rejected it (`publish.review`).
    """
    config = with_resolved_store(validate(AugmentConfig, config.model_dump(mode="json"), overrides=overrides or {}))
    require_resumable(config)
    models = check_inputs(config)
    name_run("augment", config.name, models.recipe)
    get_run_logger().info(account_of_images(config.dataset))
    with running(models.run):
        extract_features(feature_parts(models), config)
        fit_once(config, scores=True)
        rounds = generate(open_workspace(config))
        decisions = wait_for_approval(config, rounds) if config.publish.review else None
        if isinstance(decisions, Rejection):
            return Cancelled(message=f"{decisions.message}; nothing was published.")
        manifest = publish_run(config, rounds, decisions)
        comparison = config.comparison(manifest)
        if comparison is not None and has_arms(comparison):
            train_arms(comparison)
        return write_report(config, manifest)


def generate(workspace: Workspace) -> int:
    """Draw rounds of candidates until quotas are full or the budget is spent. Returns how many rounds were drawn."""
    config, real = workspace.config, workspace.real
    wanted = quotas(real, config.plan)
    store = open_run_store(workspace.run)
    learn(methods_to_learn([config.sampler]), config)
    draw(load_or_create_plan(plan_real(config.plan, real), store), config, what="real images")
    candidates = Candidates(workspace, store)
    round_number = 0
    while planned := plan_round(
        config.plan,
        candidates.tallies(),
        round_number=round_number,
        first_index=candidates.num_samples,
        wanted=wanted,
        particle_group=config.sampler.particle_group,
        sparse=workspace.sparse_groups,
    ):
        plan = load_or_create_plan(planned, store)
        if round_number == 0 and config.plan.baseline:
            draw(load_or_create_plan(plan_baseline(config.plan, plan, wanted), store), config, what="baseline")
        draw(plan, config, what=f"round {round_number}")
        candidates.add(plan)
        if round_number == 0:
            for gate in candidates.gates():
                tell = get_run_logger().info if gate.is_open else warn
                tell("%s", gate.advice)
        round_number += 1
    if pilot_failed(config.plan, candidates.tallies()):
        warn(
            "None of the first %d candidates passed the filters; no more are drawn (plan.pilot). The report says why; "
            "a weaker sampler (minority calibrate finds it) or a backbone that is trained longer may help.",
            candidates.num_samples,
        )
    return round_number


def extract_features(parts: list[FeaturePart], config: AugmentConfig) -> None:
    """Make the features of a large real set, part by part; parts that are there stay."""
    if not parts:
        return
    with stage("features", unit="images") as on_done:
        fan_out(
            partial(make_features.submit, config=config),
            parts,
            what="parts",
            name=lambda part: part.name,
            size=lambda part: part.num_images,
            demand=Demand(workers=config.workers, device=config.device),
            on_done=on_done,
        )


def learn(methods: list[TrainedMethod], config: AugmentConfig) -> None:
    """Let guidance methods learn from the real images what is not in the store, once for all workers."""
    if not methods:
        return
    with stage("guidance", unit="methods") as on_done:
        fan_out(
            partial(learn_guidance.submit, config=config),
            methods,
            what="trainings",
            name=lambda method: method.key,
            demand=Demand(workers=config.workers, device=config.device),
            on_done=on_done,
        )


def draw(plan: RoundPlan, config: AugmentConfig, *, what: str) -> None:
    """Make the units of one stage; a failed one does not stop the others."""
    work = batches(plan, units_a_task=config.units_a_task)
    with stage(what, unit="samples") as on_done:
        fan_out(
            partial(generate_units.submit, config=config),
            work,
            what="units" if len(work) == len(plan) else "batches of units",
            name=lambda batch: batch.name,
            size=lambda batch: batch.num_samples,
            demand=Demand(workers=config.workers, device=config.device),
            on_done=on_done,
            on_result=partial(count_units, dataset=config.name),
        )
