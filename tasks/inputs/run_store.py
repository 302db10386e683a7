"""The store of one run, claimed for its recipe."""

from datasets.runs.runs import open_run
from datasets.storage.store import Store
from tasks.config.runs import AugmentConfig
from tasks.inputs.run_identity import RunIdentity


def open_run_store(run: RunIdentity) -> Store:
    """The run's own store, claimed for this recipe.

    Raises:
        RecipeMismatchError: Another recipe holds it.
        StoreError: It cannot be written.
    """
    return open_run(
        run.store,
        run.config.name,
        run.run_id,
        recipe=run.recipe,
        config=published_config(run.config),
        real_digest=run.real_digest,
    )


def published_config(config: AugmentConfig) -> dict[str, object]:
    """The settings as a run's files show them: without places of this machine."""
    content: dict[str, object] = config.model_dump(
        mode="json", exclude={"store", "device", "workers", "units_a_task", "downstream"}
    )
    scores = content["scores"]
    if isinstance(scores, dict) and scores["zero_shot"] is None:
        del scores["zero_shot"]  # as runs are written that do not ask for it
    return content | {"sampler": config.sampler.to_dict()}
