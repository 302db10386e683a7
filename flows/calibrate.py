"""The flow that finds sampler settings: most kept samples per unit of compute, as valid and diverse as demanded."""

from functools import partial
from typing import Annotated, Any

from prefect import flow
from prefect.logging import get_run_logger

from flows.augment import extract_features, learn
from tasks.calibration.result import CalibrationSummary, write_calibration
from tasks.calibration.search import (
    Measurement,
    check_budget,
    measure_candidate,
    methods_of,
    plan_rung,
    plan_verification,
)
from tasks.checks import account_of_images, check_models
from tasks.config.form import ConfigForm, OverridesForm
from tasks.config.presets import validate
from tasks.config.runs import CalibrateConfig, with_resolved_store
from tasks.execution.capacity import Demand
from tasks.execution.fan_out import fan_out, task_runner
from tasks.execution.progress import stage
from tasks.execution.run_names import name_run
from tasks.inputs.feature_parts import feature_parts
from tasks.inputs.fitting import fit_once

_FORM = ConfigForm(CalibrateConfig)


@flow(name="calibrate", flow_run_name="calibrate {config.name}", task_runner=task_runner(), validate_parameters=True)
def calibrate(
    config: Annotated[CalibrateConfig, _FORM], overrides: Annotated[dict[str, Any] | None, OverridesForm(_FORM)] = None
) -> CalibrationSummary:
    """Search sampler settings within a budget, and verify the best on fresh seeds against plain and published ones.

    Args:
        config: The search. A preset of prefect.yaml, or your own.
        overrides: Single settings to change, dotted: {"calibration.budget": 200000}.
    """
    config = with_resolved_store(validate(CalibrateConfig, config.model_dump(mode="json"), overrides=overrides or {}))
    models = check_models(config.augment())
    check_budget(config)
    recipe = config.recipe(backbone_identity=models.backbone.identity, real_digest=models.real.digest)
    name_run("calibrate", config.name, recipe)
    get_run_logger().info(account_of_images(config.dataset))
    extract_features(feature_parts(models), config.augment())
    fit_once(config.augment(), scores=False)
    learn(methods_of(config), config.augment())
    searched: list[Measurement] = []
    rung = 0
    while orders := plan_rung(config, searched, rung=rung):
        measure(orders, config, what=f"rung {rung}")
        searched += orders
        rung += 1
    verification = plan_verification(config, searched)
    measure(verification, config, what="verification")
    return write_calibration(config, searched, verification)


def measure(orders: list[Measurement], config: CalibrateConfig, *, what: str) -> None:
    """Measure the candidates of one stage."""
    with stage(what, unit="samples") as on_done:
        fan_out(
            partial(measure_candidate.submit, config=config),
            orders,
            what="measurements",
            name=lambda order: f"candidate {order.candidate}",
            size=lambda order: order.count,
            demand=Demand(workers=config.workers, device=config.device),
            on_done=on_done,
        )
