"""The pointer to the latest published run of a data set: `<store>/<dataset>/latest.json`.

Each run gets the next free number when it is published first: `<dataset>/published/000001.json` and so on, created
exclusively, so that two runs never share one. The pointer names the run of the highest number. Publishing a run again
finds its number and moves nothing back.

Both carry checksums. A damaged pointer is made again from the history; a damaged file of the history is named, since
the run that it numbered stands nowhere else. Files of earlier versions have no checksum and are read as they are.
"""

import logging
from dataclasses import asdict, dataclass

from datasets.runs.manifest import MANIFEST_FILE
from datasets.runs.runs import run_path
from datasets.storage.canonical import parse_json
from datasets.storage.checked import CHECKSUM, DamagedError, checked_json, parse_checked_json
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
            content = checked_json(asdict(highest))
            # A damaged pointer is mended; one that another writer has moved meanwhile is looked at again.
            moved = pointed == content or store.swap(pointer, content, expected=pointed)
            # Without locks (object stores) a later run may have come in between; it is then for us to point to it.
            if moved and _history(store, dataset)[-1] == highest:
                return highest


def read_latest(store: Store, dataset: str) -> Latest | None:
    """What the pointer says; None where nothing is published. Where it is damaged, what the history says.

    Args:
        store: Where all datasets are published.
        dataset: The data set's name.

    Raises:
        ValueError: A file of the history is damaged, and the pointer too.
        StoreError: The store cannot be read.
    """
    path = f"{dataset}/{_POINTER}"
    if not store.exists(path):
        return None
    try:
        return _parse(store, path)
    except DamagedError as error:
        history = _history(store, dataset)
        if not history:
            raise
        logging.getLogger(__name__).warning("%s Read from the history of published runs instead.", error)
        return history[-1]


def _number(store: Store, dataset: str, run_id: str) -> None:
    """Give the run the next number unless it has one."""
    while True:
        history = _history(store, dataset)
        if any(entry.run_id == run_id for entry in history):
            return
        sequence = history[-1].sequence + 1 if history else 1
        entry = Latest(run_id=run_id, manifest=f"runs/{run_id}/{MANIFEST_FILE}", sequence=sequence)
        if store.create(_numbered(dataset, sequence), checked_json(asdict(entry))):
            return


def _history(store: Store, dataset: str) -> list[Latest]:
    paths = [path for path in store.list(f"{dataset}/{_HISTORY}") if path.endswith(".json")]
    entries = {path: _parse(store, path) for path in paths}
    for path, entry in entries.items():
        if path != _numbered(dataset, entry.sequence):
            raise DamagedError(f"{store.url(path)} says number {entry.sequence}; {_REMEDY}")
    return sorted(entries.values(), key=lambda entry: entry.sequence)


def _numbered(dataset: str, sequence: int) -> str:
    return f"{dataset}/{_HISTORY}/{sequence:06d}.json"


_REMEDY = (
    "it is damaged: restore it from a copy of the store, or remove it (the run gets a new number when it is published "
    "again)."
)


def _parse(store: Store, path: str) -> Latest:
    data, name = store.read(path), store.url(path)
    try:
        content = parse_json(data, name=name)
        if CHECKSUM in content:
            content = parse_checked_json(data, name=name)
        entry = Latest(**content)
    except (ValueError, TypeError) as error:
        raise DamagedError(f"{name} is not as it was written; {_REMEDY}") from error
    if not isinstance(entry.run_id, str) or not isinstance(entry.sequence, int):
        raise DamagedError(f"{name} names no run; {_REMEDY}")
    return entry
