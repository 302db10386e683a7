"""The flow that finds out what a published run is worth: every training recipe on it, tuned, tested and compared."""

from functools import partial
from typing import Annotated, Any

from prefect import flow

from tasks.config.form import ConfigForm, OverridesForm
from tasks.config.presets import validate
from tasks.config.runs import DownstreamConfig, with_resolved_store
from tasks.downstream.trainings import name_of, open_arms, plan_tests, plan_tuning, resolved, run_training
from tasks.execution.capacity import Demand
from tasks.execution.fan_out import fan_out, task_runner
from tasks.execution.progress import stage
from tasks.execution.run_names import name_run
from tasks.report.publish import RunSummary, report_comparison

_FORM = ConfigForm(DownstreamConfig)


@flow(name="downstream", flow_run_name="downstream {config.name}", task_runner=task_runner(), validate_parameters=True)
def downstream(
    config: Annotated[DownstreamConfig, _FORM], overrides: Annotated[dict[str, Any] | None, OverridesForm(_FORM)] = None
) -> RunSummary:
    """Train classifiers with and without the synthetic images of a published run, and compare them.

    Args:
        config: The comparison. A preset of prefect.yaml, or your own.
        overrides: Single settings to change, dotted: {"manifest": "...", "downstream.seeds": 10}.
    """
    config = with_resolved_store(validate(DownstreamConfig, config.model_dump(mode="json"), overrides=overrides or {}))
    config = resolved(config)
    name_run("downstream", config.name, open_arms(config).run.manifest.recipe)
    train_arms(config)
    return report_comparison(config)


def train_arms(config: DownstreamConfig) -> None:
    """Tune every arm on the validation images, then test what was chosen, once."""
    for what, plan in (("tuning", plan_tuning), ("testing", plan_tests)):
        with stage(what, unit="trainings") as on_done:
            fan_out(
                partial(run_training.submit, config=config),
                plan(config),
                what="trainings",
                name=name_of,
                demand=Demand(workers=config.workers, device=config.device),
                on_done=on_done,
            )
