"""The run store: `<store>/<dataset>/runs/<run id>/`, claimed by the first run and closed to other recipes."""

from typing import Any

from datasets.storage.canonical import parse_json
from datasets.storage.checked import DamagedError, checked_json, parse_checked_json
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


def open_run(
    store: Store, dataset: str, run_id: str, *, recipe: str, config: dict[str, Any], real_digest: str | None = None
) -> Store:
    """Begin a run, or come back to it after it was interrupted.

    The first call writes `run.json` with recipe and config; of several at once one does.

    Args:
        store: The store of all data sets.
        dataset: The data set's name.
        run_id: The run's name.
        recipe: Hash over everything that changes the images.
        config: The resolved settings, as plain JSON values; for the reader's information.
        real_digest: Digest of the real images, which the recipe covers; where runs differ in it, the error says so.

    Returns:
        The run's own store.

    Raises:
        RecipeMismatchError: The run was begun with another recipe.
        ValueError: A name is not allowed, or `run.json` is damaged.
        StoreError: The store cannot be read or written.
    """
    run_store = store.child(run_path(dataset, run_id))
    begin = {"recipe": recipe, "config": config, "real_digest": real_digest}
    if run_store.create(RUN_FILE, checked_json(begin)):
        return run_store
    begun = _parse(run_store.read(RUN_FILE), name=run_store.url(RUN_FILE))
    if begun["recipe"] != recipe:
        before = begun.get("real_digest")
        others = real_digest is not None and before is not None and before != real_digest
        cause = "; the real images are not those that it was begun with" if others else ""
        remedy = "restore the settings and images that made them"
        raise RecipeMismatchError(
            f"{run_store.root} holds samples of recipe {begun['recipe']}, this run is recipe {recipe}{cause}; "
            f"choose another run id or store, or {remedy}."
        )
    return run_store


def _parse(data: bytes, *, name: str) -> dict[str, Any]:
    try:
        return parse_checked_json(data, name=name)
    except DamagedError as error:
        try:
            content = parse_json(data, name=name)
        except ValueError:
            content = {}
        if content.keys() == {"recipe", "config"}:  # of an earlier version, which wrote no checksum
            return content
        # Units name their recipe too, so that without the file none of another recipe is taken.
        raise DamagedError(
            f"{name} is not what its checksum says; it is damaged: remove it and run again, or choose another run id."
        ) from error
