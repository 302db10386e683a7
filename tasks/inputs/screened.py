"""Every image of a run is read once before device time is spent; a machine keeps what was found."""

import hashlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import PIL

from datasets.readers.images.screening import Screening, screen
from datasets.readers.imageset import ImageSet
from tasks.config.paths import cache_folder, data_path
from tasks.config.sections import DatasetConfig

#: Raise it when a change of the code changes which images can be read.
_VERSION = 2


def screened(parts: Mapping[str, ImageSet], config: DatasetConfig) -> Screening:
    """Read every image once, or take what an earlier reading of the same files found.

    Files are the same where names, sizes and times of change are. A cache that cannot be read or written costs a
    reading and is no error.

    Args:
        parts: Part -> its images.
        config: Where they come from.
    """
    if config.folder is None:
        return screen(parts)
    kept = cache_folder() / "screenings" / f"{_cache_key(parts, config)}.npz"
    with suppress(OSError, ValueError, KeyError, zipfile.BadZipFile):
        return _from_bytes(kept.read_bytes(), parts)
    screening = screen(parts)
    with suppress(OSError):
        _write_whole(kept, _to_bytes(screening))
    return screening


def _to_bytes(screening: Screening) -> bytes:
    """The digests as arrays, and all else as JSON."""
    facts = json.dumps(asdict(replace(screening, digests={}))).encode()
    content = io.BytesIO()
    arrays = {"_facts": np.frombuffer(facts, dtype=np.uint8)} | dict(screening.digests)
    np.savez(content, allow_pickle=False, **arrays)
    return content.getvalue()


def _from_bytes(data: bytes, parts: Mapping[str, ImageSet]) -> Screening:
    """What `_to_bytes` wrote.

    Raises:
        ValueError, KeyError, zipfile.BadZipFile: It is damaged, or of other parts.
    """
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        facts = json.loads(arrays["_facts"].tobytes())
        digests = {name: arrays[name] for name in parts}
    if any(len(digests[name]) != len(part) for name, part in parts.items()):
        raise ValueError("the digests are of other parts.")
    unreadable = {name: {int(i): why for i, why in facts["unreadable"][name].items()} for name in parts}
    return Screening(**(facts | {"unreadable": unreadable, "example": tuple(facts["example"]), "digests": digests}))


def _cache_key(parts: Mapping[str, ImageSet], config: DatasetConfig) -> str:
    digest = hashlib.sha256(f"{_VERSION} {PIL.__version__} {config.model_dump_json()}".encode())
    for name, part in parts.items():
        digest.update(f"\n{name} {part.image_shape} {len(part)}".encode())
        for source_id in part.source_ids:
            digest.update(f"\n{source_id}".encode(errors="surrogateescape"))
    for path in _files(config):
        with suppress(OSError):
            status = path.stat()
            digest.update(f"\n{path} {status.st_size} {status.st_mtime_ns}".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _files(config: DatasetConfig) -> Iterator[Path]:
    """The files that the images are read from, in a fixed order."""
    root = data_path(config.folder or "")
    for folder_or_file in [root / config.table.images] if config.table is not None else [root]:
        if folder_or_file.is_file():
            yield folder_or_file
        for folder, below, names in os.walk(folder_or_file):
            below.sort()
            yield from (Path(folder, name) for name in sorted(names))


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
    Path(file.name).replace(path)
