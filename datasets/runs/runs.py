"""The run store: `<store>/<dataset>/runs/<run id>/`, claimed by the first run and closed to other recipes."""

from typing import Any

from datasets.storage.canonical import canonical_json, parse_json
from datasets.storage.names import require_name
from datasets.storage.store import Store

RUN_FILE = "run.json"


class RecipeMismatchError(ValueError):
    """A run's folder holds samples that other settings made."""


def run_path(dataset: str, run_id: str) -> str:
    """The folder of a run below the store, `<dataset>/runs/<run id>`.

    Raises:
        ValueError: One of the names is not safe as a file name.
    """
    require_name("dataset", dataset)
    require_name("run id", run_id)
    return f"{dataset}/runs/{run_id}"


def open_run(store: Store, dataset: str, run_id: str, *, recipe: str, config: dict[str, Any]) -> Store:
    """Begin a run, or come back to it after it was interrupted.

    The first call writes `run.json` with recipe and config; of several at once one does.

    Args:
        store: The store of all data sets.
        dataset: The data set's name.
        run_id: The run's name.
        recipe: Hash over everything that changes the images.
        config: The resolved settings, as plain JSON values; for the reader's information.

    Returns:
        The run's own store.

    Raises:
        RecipeMismatchError: The run was begun with another recipe.
        ValueError: A name is not allowed, or `run.json` is damaged.
        StoreError: The store cannot be read or written.
    """
    run_store = store.child(run_path(dataset, run_id))
    if run_store.create(RUN_FILE, canonical_json({"recipe": recipe, "config": config})):
        return run_store
    name = run_store.url(RUN_FILE)
    begun_with = parse_json(run_store.read(RUN_FILE), name=name).get("recipe")
    if not isinstance(begun_with, str):
        raise ValueError(f"{name} names no recipe; it is damaged: remove the run's folder or choose another run id.")
    if begun_with != recipe:
        raise RecipeMismatchError(
            f"{run_store.root} holds samples of recipe {begun_with}, this run is recipe {recipe}; "
            "choose another run id or store, or restore the settings that made them."
        )
    return run_store
