"""The pointer to the latest published run of a data set: `<store>/<dataset>/latest.json`.

Each run gets the next free number when it is published first: `<dataset>/published/000001.json` and so on, created
exclusively, so that two runs never share one. The pointer names the run of the highest number. Publishing a run again
finds its number and moves nothing back.
"""

from dataclasses import asdict, dataclass

from datasets.runs.manifest import MANIFEST_FILE
from datasets.runs.runs import run_path
from datasets.storage.canonical import canonical_json, parse_json
from datasets.storage.store import Store

_POINTER = "latest.json"
_HISTORY = "published"


@dataclass(frozen=True)
class Latest:
    """What `latest.json` says.

    Attributes:
        run_id: The run.
        manifest: Its manifest, relative to the data set's folder.
        sequence: The run's number, 1 for the first that was published.
    """

    run_id: str
    manifest: str
    sequence: int


def move_latest(store: Store, dataset: str, run_id: str) -> Latest:
    """Point to a published run, unless a later one is already pointed to.

    Args:
        store: The store of all data sets.
        dataset: The data set's name.
        run_id: A run whose manifest is written.

    Returns:
        What the pointer says afterwards.

    Raises:
        ValueError: The run is not published, or a file of the history is damaged.
        StoreError: The store cannot be read or written.
    """
    if not store.exists(f"{run_path(dataset, run_id)}/{MANIFEST_FILE}"):
        raise ValueError(f"run {run_id} of {dataset} has no manifest in {store.root}; publish it first.")
    pointer = f"{dataset}/{_POINTER}"
    with store.locked(f"latest-{dataset}"):
        _number(store, dataset, run_id)
        while True:
            # The pointer first: the history that is read after it cannot be older.
            pointed = store.read(pointer) if store.exists(pointer) else None
            highest = _history(store, dataset)[-1]
            content = canonical_json(asdict(highest))
            # A damaged pointer is mended; one that another writer has moved meanwhile is looked at again.
            moved = pointed == content or store.swap(pointer, content, expected=pointed)
            # Without locks (object stores) a later run may have come in between; it is then for us to point to it.
            if moved and _history(store, dataset)[-1] == highest:
                return highest


def read_latest(store: Store, dataset: str) -> Latest | None:
    """What the pointer says; None where nothing is published.

    Raises:
        ValueError: The pointer is damaged.
        StoreError: The store cannot be read.
    """
    path = f"{dataset}/{_POINTER}"
    return _parse(store, path) if store.exists(path) else None


def _number(store: Store, dataset: str, run_id: str) -> None:
    """Give the run the next number unless it has one."""
    while True:
        history = _history(store, dataset)
        if any(entry.run_id == run_id for entry in history):
            return
        sequence = history[-1].sequence + 1 if history else 1
        entry = Latest(run_id=run_id, manifest=f"runs/{run_id}/{MANIFEST_FILE}", sequence=sequence)
        if store.create(f"{dataset}/{_HISTORY}/{sequence:06d}.json", canonical_json(asdict(entry))):
            return


def _history(store: Store, dataset: str) -> list[Latest]:
    entries = [_parse(store, path) for path in store.list(f"{dataset}/{_HISTORY}") if path.endswith(".json")]
    return sorted(entries, key=lambda entry: entry.sequence)


def _parse(store: Store, path: str) -> Latest:
    content = parse_json(store.read(path), name=store.url(path))
    try:
        entry = Latest(**content)
    except TypeError as error:
        raise ValueError(f"{store.url(path)} is damaged ({error}); restore it from a copy of the store.") from error
    if not isinstance(entry.run_id, str) or not isinstance(entry.sequence, int):
        raise ValueError(f"{store.url(path)} is damaged; restore it from a copy of the store.")
    return entry
