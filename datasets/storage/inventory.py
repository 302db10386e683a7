"""What lies in a store, with sizes and ages: whole files, and what killed writers left half-written."""

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from datasets.storage.local_files import find_leftovers, list_files, remove_emptied
from datasets.storage.store import Store

#: What `Store.check_writable` leaves where it is killed.
_PROBE = re.compile(r"\.writable-\d+-[0-9a-f]{8}")

#: Seconds after which an upload's writer is dead: no file of ours takes so long.
_LONGEST_UPLOAD = 3600.0


@dataclass(frozen=True)
class FileFacts:
    """A file in a store.

    Attributes:
        path: Relative to the store.
        bytes: Its size; 0 for an unfinished upload, whose parts are not told.
        age: Seconds since it was written, by the store's clock and ours; never below 0.
    """

    path: str
    bytes: int
    age: float


def inventory(store: Store, prefix: str = "") -> list[FileFacts]:
    """The files that `store.list(prefix)` gives, by path.

    Raises:
        StoreError: The store cannot be read.
    """
    files, base = store.backend
    with store.naming("read", prefix):
        if _is_local(store):
            listing = _local_facts(store, list_files(Path(base, prefix)))
        else:
            try:
                details = files.find(f"{base}/{prefix}".rstrip("/"), detail=True, refresh=True)
            except FileNotFoundError:
                details = {}
            listing = (
                FileFacts(name[len(base) :].lstrip("/"), int(facts["size"]), _age(_written(facts)))
                for name, facts in details.items()
            )
        return sorted(listing, key=lambda facts: facts.path)


def torn_files(store: Store) -> list[FileFacts]:
    """Temporary files whose writers are dead, and uploads to S3 that were begun and neither ended nor given up.

    Raises:
        StoreError: The store cannot be read.
    """
    base = store.backend[1]
    with store.naming("read", ""):
        probes = [facts for facts in inventory(store) if _PROBE.fullmatch(facts.path)]
        if _is_local(store):
            return [*_local_facts(store, find_leftovers(Path(base))), *probes]
        uploads = [FileFacts(path, 0, _age(upload["Initiated"])) for path, upload in _uploads(store)]
        return [upload for upload in uploads if upload.age >= _LONGEST_UPLOAD] + probes


def remove_torn(store: Store, path: str) -> None:
    """Remove what `torn_files` found; what is already gone is no error.

    Raises:
        StoreError: It cannot be removed.
    """
    files, base = store.backend
    with store.naming("removed", path):
        for torn, upload in _uploads(store):
            if torn == path:
                files.abort_mpu(base.split("/")[0], upload["Key"], upload["UploadId"])
                return
        store.remove(path)


def remove_emptied_folder(store: Store, path: str) -> None:
    """Remove what is left of a local folder whose files are gone: locks and empty folders. Other stores have none.

    Raises:
        StoreError: It cannot be removed.
    """
    if _is_local(store):
        with store.naming("removed", path):
            remove_emptied(Path(store.backend[1], path))


def _is_local(store: Store) -> bool:
    return "://" not in store.root


def _local_facts(store: Store, paths: list[Path]) -> Iterator[FileFacts]:
    for path in paths:
        try:
            status = path.stat()
        except FileNotFoundError:  # renamed or removed since it was listed
            continue
        yield FileFacts(os.path.relpath(path, store.backend[1]), status.st_size, _age(status.st_mtime))


def _uploads(store: Store) -> Iterator[tuple[str, dict[str, Any]]]:
    """Path in the store, and what S3 says of an unfinished upload."""
    files, base = store.backend
    if not hasattr(files, "list_multipart_uploads"):
        return
    bucket, _, prefix = base.partition("/")
    for upload in files.list_multipart_uploads(bucket):
        if upload["Key"].startswith(f"{prefix}/" if prefix else ""):
            yield upload["Key"][len(prefix) :].lstrip("/"), upload


def _written(facts: dict[str, Any]) -> datetime | float:
    """When a file was written, as its backend spells it."""
    known = next(
        (facts[name] for name in ("mtime", "LastModified", "last_modified", "updated", "created") if name in facts),
        None,
    )
    if known is None:
        raise OSError(f"the backend does not tell when {facts.get('name')} was written")
    return datetime.fromisoformat(known) if isinstance(known, str) else known


def _age(written: datetime | float) -> float:
    moment = written.timestamp() if isinstance(written, datetime) else written
    return max(0.0, time.time() - moment)
