"""The step before the drawing: guidance methods that learn from the real images do so once, for all workers."""

from prefect import task
from prefect.logging import get_run_logger

from minority.guidance.method import TrainedMethod
from tasks.config.runs import AugmentConfig
from tasks.execution.failures import TRIED_AGAIN
from tasks.inputs.guidance_parts import open_parts
from tasks.inputs.workspace import open_workspace


@task(task_run_name="learn-{method.key}", **TRIED_AGAIN)
def learn_guidance(method: TrainedMethod, config: AugmentConfig) -> str:
    """Learn what one method needs, unless it lies in the store. Returns the method's key."""
    open_parts(open_workspace(config), [method])
    get_run_logger().info("%s has learnt %s", method.key, ", ".join(method.part_names))
    return method.key


__all__ = ["TrainedMethod", "learn_guidance"]
