"""Finding what killed or abandoned runs left in a store, and removing it.

Three kinds of leftover, each only when nothing near it was written for a while: runs that were begun and never
published, the staging of runs that are published, and the torn temporary files of killed writers. What is published,
and whatever stands under a name that is none of ours, is never among them.
"""

from dataclasses import dataclass
from typing import Literal

from datasets.runs.leases import LEASE_FILE, LEASE_SECONDS
from datasets.runs.manifest import MANIFEST_FILE
from datasets.runs.publish import CLAIM_FILE
from datasets.runs.runs import RUN_FILE
from datasets.storage.inventory import FileFacts, inventory, remove_emptied_folder, remove_torn, torn_files
from datasets.storage.names import is_name
from datasets.storage.store import Store

Kind = Literal["abandoned run", "staging of a published run", "torn file"]

#: Folders and files of a run that are of no use once it is published.
_STAGING = ("units/", "plans/", CLAIM_FILE, LEASE_FILE)


@dataclass(frozen=True)
class Leftover:
    """Something that may go.

    Attributes:
        kind: What it is.
        path: Where it lies in the store: a run's folder, or a torn file.
        files: What would be removed, in that order.
        bytes: Their size together.
        age: Seconds since the newest of them was written.
    """

    kind: Kind
    path: str
    files: tuple[str, ...]
    bytes: int
    age: float


def find_leftovers(store: Store, *, older_than: float) -> list[Leftover]:
    """What may go, by path.

    Args:
        store: The store of all data sets.
        older_than: Seconds for which nothing was written in a run, or in a torn file.

    Raises:
        StoreError: The store cannot be read.
    """
    runs: dict[str, list[FileFacts]] = {}
    for facts in inventory(store):
        run = _run_of(facts.path)
        if run is not None:
            runs.setdefault(run, []).append(facts)
    leftovers = [left for run, files in runs.items() if (left := _of_run(store, run, files)) is not None]
    leftovers += [Leftover("torn file", torn.path, (torn.path,), torn.bytes, torn.age) for torn in torn_files(store)]
    return sorted((left for left in leftovers if left.age >= older_than), key=lambda left: left.path)


def remove_leftover(store: Store, leftover: Leftover, *, older_than: float) -> bool:
    """Remove what was found, unless somebody has come back to it meanwhile.

    A removal that dies leaves a run that is still unpublished, and can be gone on with or removed again.

    Returns:
        Whether it was removed.

    Raises:
        StoreError: The store cannot be read or written.
    """
    if leftover.kind == "torn file":
        remove_torn(store, leftover.path)
        return True
    now = _of_run(store, leftover.path, inventory(store, leftover.path))
    if now is None or now.kind != leftover.kind or now.age < older_than:
        return False
    for path in now.files:
        store.remove(path)
    remove_emptied_folder(store, leftover.path)
    return True


def _run_of(path: str) -> str | None:
    """`<dataset>/runs/<run id>` of a file in a run's folder, None for others."""
    parts = path.split("/")
    if len(parts) < 4 or parts[1] != "runs" or not (is_name(parts[0]) and is_name(parts[2])):
        return None
    return "/".join(parts[:3])


def _of_run(store: Store, run: str, files: list[FileFacts]) -> Leftover | None:
    by_name = {facts.path[len(run) + 1 :]: facts for facts in files}
    lease = by_name.get(LEASE_FILE)
    if RUN_FILE not in by_name or (lease is not None and lease.age < LEASE_SECONDS):
        return None
    if MANIFEST_FILE in by_name:
        kind: Kind = "staging of a published run"
        names = [name for name in by_name if name.startswith(_STAGING)]
    else:
        kind = "abandoned run"
        # run.json last: as long as it is there, the folder is known for a run, and closed to other recipes.
        names = sorted(by_name, key=lambda name: (name == RUN_FILE, name))
    if not names:
        return None
    return Leftover(
        kind,
        run,
        tuple(f"{run}/{name}" for name in names),
        sum(by_name[name].bytes for name in names),
        min(facts.age for facts in files),
    )
