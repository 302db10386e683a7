"""The flow that adapts a text-to-image backbone to the training split of a dataset."""

from typing import Annotated, Any

from prefect import flow
from prefect.logging import get_run_logger

from tasks.backbone.adapt import adapt_backbone
from tasks.checks import account_of_images
from tasks.config.form import ConfigForm, OverridesForm
from tasks.config.presets import validate
from tasks.config.runs import AdaptConfig
from tasks.execution.fan_out import task_runner
from tasks.execution.run_names import name_run
from tasks.inputs.training_recipe import training_recipe

_FORM = ConfigForm(AdaptConfig)


@flow(name="adapt", flow_run_name="adapt {config.name}", task_runner=task_runner(), validate_parameters=True)
def adapt(
    config: Annotated[AdaptConfig, _FORM], overrides: Annotated[dict[str, Any] | None, OverridesForm(_FORM)] = None
) -> str:
    """Learn LoRA and new words of prompts on the training split alone, evaluate them, and write them with a card.

    Args:
        config: The adaptation. A preset of prefect.yaml, or your own.
        overrides: Single settings to change, dotted: {"adaptation.steps": 500}.

    Returns:
        The folder that holds the adapter.
    """
    config = validate(AdaptConfig, config.model_dump(mode="json"), overrides=overrides or {})
    get_run_logger().info(account_of_images(config.dataset))
    name_run("adapt", config.name, training_recipe(config))
    return adapt_backbone(config)
