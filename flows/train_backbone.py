"""The flow that trains a backbone on the training split of a dataset."""

from typing import Annotated, Any

from prefect import flow
from prefect.logging import get_run_logger

from tasks.backbone.train import train
from tasks.checks import account_of_images
from tasks.config.form import ConfigForm, OverridesForm
from tasks.config.presets import validate
from tasks.config.runs import TrainBackboneConfig
from tasks.execution.fan_out import task_runner
from tasks.execution.run_names import name_run
from tasks.inputs.training_recipe import training_recipe

_FORM = ConfigForm(TrainBackboneConfig)


@flow(name="backbone", flow_run_name="backbone {config.name}", task_runner=task_runner(), validate_parameters=True)
def train_backbone(
    config: Annotated[TrainBackboneConfig, _FORM],
    overrides: Annotated[dict[str, Any] | None, OverridesForm(_FORM)] = None,
) -> str:
    """Train a backbone on the training split alone, and write it with its model card.

    Args:
        config: The training run. A preset of prefect.yaml, or your own.
        overrides: Single settings to change, dotted: {"training.steps": 500}.

    Returns:
        The folder that holds the backbone.
    """
    config = validate(TrainBackboneConfig, config.model_dump(mode="json"), overrides=overrides or {})
    get_run_logger().info(account_of_images(config.dataset))
    name_run("backbone", config.name, training_recipe(config))
    return train(config)
