"""The flow that finds sampler settings: most kept samples per unit of compute, as valid and diverse as demanded."""

from functools import partial
from typing import Any

from prefect import flow
from prefect.logging import get_run_logger

from flows.augment import learn
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
from tasks.config.presets import validate
from tasks.config.runs import CalibrateConfig, with_resolved_store
from tasks.execution.capacity import Demand
from tasks.execution.fan_out import fan_out, task_runner
from tasks.execution.progress import stage
from tasks.inputs.fitting import fit_once


@flow(name="calibrate", task_runner=task_runner(), validate_parameters=True)
def calibrate(config: CalibrateConfig, overrides: dict[str, Any] | None = None) -> CalibrationSummary:
    """Search sampler settings within a budget, and verify the best on fresh seeds against plain and published ones.

    Args:
        config: The search. A preset of prefect.yaml, or your own.
        overrides: Single settings to change, dotted: {"calibration.budget": 200000}.
    """
    config = with_resolved_store(validate(CalibrateConfig, config.model_dump(mode="json"), overrides=overrides or {}))
    check_models(config.augment())
    check_budget(config)
    get_run_logger().info(account_of_images(config.dataset))
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
