"""The step before the first unit: what is fitted once a recipe is fitted, and kept in the store for all workers."""

from prefect import task

from tasks.config.runs import AugmentConfig
from tasks.execution.failures import TRIED_AGAIN
from tasks.inputs.scoring import validation_scores
from tasks.inputs.workspace import open_workspace


@task(task_run_name="fit what {config.name} needs", **TRIED_AGAIN)
def fit_once(config: AugmentConfig, *, scores: bool) -> None:
    """Fit discriminator, labeller and label floor as far as the run has them; what lies in the store already stays.

    Args:
        config: The run.
        scores: Whether validation images are scored, too, which is the scale of the candidates' scores.

    Raises:
        InputError: Something is missing, or does not fit together.
        StoreError: The store cannot be read or written.
    """
    workspace = open_workspace(config)
    if scores:
        validation_scores(workspace)
