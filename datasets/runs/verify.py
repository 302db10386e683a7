"""Checking a published run against its manifest: every shard, checksum, row and count."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from datasets.runs.manifest import MANIFEST_FILE, Manifest, MetadataEntry, ShardEntry
from datasets.runs.shards import parse_sample, read_members
from datasets.runs.tables import conform_rows, parse_table, parse_weights
from datasets.storage.canonical import sha256_hex
from datasets.storage.store import Store, StoreError

_CHECKED_COLUMNS = ("key", "label", "label_name", "group", "source", "kept", "shard", "image_sha256")
_MOST_PROBLEMS_A_FILE = 5
#: Bytes by which a file may be larger than the manifest says and still be read for what is wrong with it.
_MOST_SURPLUS = 1 << 26


def verify(manifest_url: str) -> list[str]:
    """Check everything a manifest promises.

    Args:
        manifest_url: File name or URL of a run's manifest.

    Returns:
        What is wrong, one line a problem, each naming its file; [] where the run is sound. Damage of any kind is
        reported here, never raised.

    Raises:
        ValueError: The URL is of an unknown protocol.
        StoreError: The folder of shards cannot be listed, e.g. for want of permission.
    """
    folder, _, file_name = str(manifest_url).rpartition("/")
    store = Store(folder or ("/" if str(manifest_url).startswith("/") else "."))
    try:
        manifest = Manifest.from_json(store.read(file_name), name=manifest_url)
    except (FileNotFoundError, StoreError, ValueError) as error:
        return [str(error)]
    findings = _Findings()
    _check_card(store, manifest, findings=findings)
    rows = _check_metadata(store, manifest, findings=findings)
    expected = _keys_by_shard(rows or {})
    for shard in manifest.shards:
        _check_shard(store, shard, rows=rows, expected=expected.get(shard.path, []), findings=findings)
    _check_strays(store, manifest, findings=findings)
    if manifest.weights is not None:
        _check_weights(store, manifest.weights, rows=rows, findings=findings)
    if rows is not None:
        _check_counts(manifest, rows=rows, findings=findings)
        _check_quotas(manifest, rows=rows, findings=findings)
    return findings.lines()


def require_manifest(manifest_url: str) -> None:
    """Refuse a path or URL at which nothing lies: that is no damage, but another place than was meant.

    Raises:
        FileNotFoundError: There is nothing, or a folder.
    """
    folder, _, file_name = str(manifest_url).rpartition("/")
    store = Store(folder or ("/" if str(manifest_url).startswith("/") else "."))
    if not file_name or not store.exists(file_name):
        raise FileNotFoundError(f"{manifest_url} does not exist or is a folder; name the manifest.json of a run.")


class _Findings:
    """Problems by file; a file with many shows the first few and the number of the rest."""

    def __init__(self) -> None:
        self._by_file: dict[str, list[str]] = {}

    def add(self, path: str, problem: str) -> None:
        self._by_file.setdefault(path, []).append(problem)

    def lines(self) -> list[str]:
        lines = []
        for path, problems in self._by_file.items():
            lines += [f"{path}: {problem}" for problem in problems[:_MOST_PROBLEMS_A_FILE]]
            if len(problems) > _MOST_PROBLEMS_A_FILE:
                lines.append(f"{path}: and {len(problems) - _MOST_PROBLEMS_A_FILE} more problems")
        return lines


@dataclass(frozen=True)
class _Row:
    label: int
    label_name: str
    group: str
    source: str
    kept: bool
    shard: str | None
    image_sha256: str | None


def _read(store: Store, path: str, *, size: int | None, findings: _Findings) -> bytes | None:
    """The content; None where it is missing, cannot be read, or is so much larger than said that it is not read."""
    try:
        on_disk = store.size(path)
        if size is not None and on_disk > size + _MOST_SURPLUS:
            findings.add(path, f"has {on_disk} bytes, the manifest says {size}")
            return None
        return store.read(path)
    except FileNotFoundError:
        findings.add(path, "is missing")
    except StoreError as error:
        findings.add(path, str(error))
    return None


def _check_bytes(data: bytes, *, path: str, size: int | None, sha256: str, findings: _Findings) -> None:
    if size is not None and len(data) != size:
        findings.add(path, f"has {len(data)} bytes, the manifest says {size}")
    if sha256_hex(data) != sha256:
        findings.add(path, f"has SHA-256 {sha256_hex(data)[:12]}..., the manifest says {sha256[:12]}...")


def _check_card(store: Store, manifest: Manifest, *, findings: _Findings) -> None:
    data = _read(store, manifest.card.path, size=None, findings=findings)
    if data is not None:
        _check_bytes(data, path=manifest.card.path, size=None, sha256=manifest.card.sha256, findings=findings)


def _check_metadata(store: Store, manifest: Manifest, *, findings: _Findings) -> dict[str, _Row] | None:
    """Key -> row; None where the table cannot be read."""
    entry = manifest.metadata
    data = _read(store, entry.path, size=entry.bytes, findings=findings)
    if data is None:
        return None
    _check_bytes(data, path=entry.path, size=entry.bytes, sha256=entry.sha256, findings=findings)
    try:
        table = parse_table(data, name="the file")
        if table.num_rows != entry.num_rows:
            findings.add(entry.path, f"has {table.num_rows} rows, the manifest says {entry.num_rows}")
        return _rows(conform_rows(table, name="the table"))
    except ValueError as error:
        findings.add(entry.path, str(error))
        return None


def _check_weights(store: Store, entry: MetadataEntry, *, rows: dict[str, _Row] | None, findings: _Findings) -> None:
    data = _read(store, entry.path, size=entry.bytes, findings=findings)
    if data is None:
        return
    _check_bytes(data, path=entry.path, size=entry.bytes, sha256=entry.sha256, findings=findings)
    try:
        table = parse_weights(data, name="the file")
    except ValueError as error:
        findings.add(entry.path, str(error))
        return
    if table.num_rows != entry.num_rows:
        findings.add(entry.path, f"has {table.num_rows} rows, the manifest says {entry.num_rows}")
    kept = {key for key, row in (rows or {}).items() if row.kept}
    odd = sorted(kept ^ set(table["key"].to_pylist())) if rows is not None else []
    if odd:
        findings.add(entry.path, f"and the published images differ in {len(odd)} keys, first {odd[0]}")


def _rows(table: pa.Table) -> dict[str, _Row]:
    columns: list[list[Any]] = [table[name].to_pylist() for name in _CHECKED_COLUMNS]
    return {key: _Row(*values) for key, *values in zip(*columns, strict=True)}


def _keys_by_shard(rows: dict[str, _Row]) -> dict[str, list[str]]:
    """Shard -> keys of the rows that are published in it."""
    keys: dict[str, list[str]] = {}
    for key, row in rows.items():
        if row.kept and row.shard is not None:
            keys.setdefault(row.shard, []).append(key)
    return keys


def _check_shard(
    store: Store, shard: ShardEntry, *, rows: dict[str, _Row] | None, expected: list[str], findings: _Findings
) -> None:
    data = _read(store, shard.path, size=shard.bytes, findings=findings)
    if data is None:
        return
    _check_bytes(data, path=shard.path, size=shard.bytes, sha256=shard.sha256, findings=findings)
    try:
        members = read_members(data, name="the tar")
    except ValueError as error:
        findings.add(shard.path, str(error))
        return
    if len(members) != shard.num_samples:
        findings.add(shard.path, f"has {len(members)} samples, the manifest says {shard.num_samples}")
    for key, fields in members.items():
        _check_sample(key, fields, shard=shard, rows=rows, findings=findings)
    for key in expected:
        if key not in members:
            findings.add(shard.path, f"lacks the sample {key}, which has a row")


def _check_sample(
    key: str, fields: dict[str, bytes], *, shard: ShardEntry, rows: dict[str, _Row] | None, findings: _Findings
) -> None:
    try:
        sample = parse_sample(key, fields, name="the tar")
    except ValueError as error:
        findings.add(shard.path, str(error))
        return
    if rows is None:
        return
    row = rows.get(key)
    if row is None:
        findings.add(shard.path, f"sample {key} has no row in the table")
    elif not row.kept or row.shard != shard.path:
        findings.add(shard.path, f"sample {key} has a row with kept {row.kept} and shard {row.shard}")
    elif row.label != sample.label:
        findings.add(shard.path, f"sample {key} has label {sample.label}, its row says {row.label}")
    elif row.image_sha256 != sha256_hex(sample.encoded()):
        findings.add(shard.path, f"sample {key} is not the image whose SHA-256 its row gives")


def _check_strays(store: Store, manifest: Manifest, *, findings: _Findings) -> None:
    named = Counter(shard.path for shard in manifest.shards)
    for path in sorted(path for path, times in named.items() if times > 1):
        findings.add(path, "is named twice by the manifest")
    for path in store.list("shards"):
        if path not in named:
            findings.add(path, "is not named by the manifest")


def _check_counts(manifest: Manifest, *, rows: dict[str, _Row], findings: _Findings) -> None:
    named = {shard.path for shard in manifest.shards}
    path = manifest.metadata.path
    counted: dict[str, dict[str, int]] = {name: dict.fromkeys(row, 0) for name, row in manifest.counts.items()}
    for key, row in rows.items():
        if not row.kept:
            if row.shard is not None:
                findings.add(path, f"row {key} is not kept but names the shard {row.shard}")
            continue
        if row.shard not in named:
            findings.add(path, f"row {key} is kept, but its shard {row.shard} is not in the manifest")
        if not 0 <= row.label < len(manifest.class_names):
            findings.add(path, f"row {key} has label {row.label}, which has no name")
            continue
        if row.label_name != manifest.class_names[row.label]:
            name = manifest.class_names[row.label]
            findings.add(path, f"row {key} calls label {row.label} {row.label_name!r}, the manifest {name!r}")
        by_source = counted.setdefault(str(manifest.class_names[row.label]), {})
        by_source[row.source] = by_source.get(row.source, 0) + 1
    if counted != manifest.counts:
        odd = next(name for name in counted if counted[name] != manifest.counts.get(name))
        findings.add(path, f"has {counted[odd]} kept rows of class {odd}, the manifest says {manifest.counts.get(odd)}")


def _check_quotas(manifest: Manifest, *, rows: dict[str, _Row], findings: _Findings) -> None:
    made = Counter(row.group for row in rows.values() if row.kept and row.source == "synthetic")
    for group, quota in manifest.quotas.items():
        if quota.keys() != {"asked", "kept", "shortfall"}:
            findings.add(MANIFEST_FILE, f"gives group {group} the quota {quota}, not asked, kept and shortfall")
            continue
        right = {"asked": quota["asked"], "kept": made[group], "shortfall": max(0, quota["asked"] - made[group])}
        if quota != right:
            findings.add(MANIFEST_FILE, f"gives group {group} the quota {quota}, its rows make it {right}")
