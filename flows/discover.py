"""The flow that looks for hidden groups: images that biased models get wrong."""

from functools import partial
from typing import Annotated, Any

from prefect import flow
from prefect.logging import get_run_logger

from tasks.checks import account_of_images
from tasks.config.form import ConfigForm, OverridesForm
from tasks.config.presets import validate
from tasks.config.runs import DiscoverConfig, with_resolved_store
from tasks.discovery.result import DiscoverySummary, write_discovery
from tasks.discovery.search import draw_plain_samples, fit_biased_model, open_search, plan_fits, plan_samples
from tasks.execution.capacity import Demand
from tasks.execution.fan_out import fan_out, task_runner
from tasks.execution.progress import stage
from tasks.execution.run_names import name_run

_FORM = ConfigForm(DiscoverConfig)


@flow(name="discover", flow_run_name="discover {config.name}", task_runner=task_runner(), validate_parameters=True)
def discover(
    config: Annotated[DiscoverConfig, _FORM], overrides: Annotated[dict[str, Any] | None, OverridesForm(_FORM)] = None
) -> DiscoverySummary:
    """Train biased models, collect what they get wrong, and write it as a table with contact sheets.

    Args:
        config: The search. A preset of prefect.yaml, or your own.
        overrides: Single settings to change, dotted: {"discovery.models": 5}.
    """
    config = with_resolved_store(validate(DiscoverConfig, config.model_dump(mode="json"), overrides=overrides or {}))
    get_run_logger().info(account_of_images(config.dataset))
    name_run("discover", config.name, open_search(config).recipe)
    demand = Demand(workers=config.workers, device=config.device)
    if labels := plan_samples(config):
        with stage("drawing", unit="classes") as on_done:
            fan_out(
                partial(draw_plain_samples.submit, config=config),
                labels,
                what="classes",
                name=lambda label: f"class {label}",
                demand=demand,
                on_done=on_done,
            )
    with stage("biased models", unit="trainings") as on_done:
        fan_out(
            partial(fit_biased_model.submit, config=config),
            plan_fits(config),
            what="trainings",
            name=lambda fit: f"biased model {fit.key}",
            demand=demand,
            on_done=on_done,
        )
    return write_discovery(config)
