"""A published run, opened for an export: its manifest, a row for every published image, and the images in order."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from datasets.runs.latest import read_latest
from datasets.runs.manifest import MANIFEST_FILE, Manifest
from datasets.runs.shards import read_tar
from datasets.runs.tables import conform_rows, parse_table
from datasets.storage.canonical import sha256_hex
from datasets.storage.store import Store

#: Where an image lies in the run, which means nothing elsewhere.
_LEFT_OUT = ("shard", "unit")
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True, eq=False)
class ExportImage:
    """A published image.

    Attributes:
        key: Its name in the run.
        data: Its bytes, as they are published.
        extension: Of what kind they are: png, webp or jpg.
        label: Class index.
        fields: What the table says of it, by column; values that are missing are None.
    """

    key: str
    data: bytes
    extension: str
    label: int
    fields: dict[str, Any]


@dataclass(frozen=True, eq=False)
class OpenedRun:
    """A published run.

    Attributes:
        store: Its own store.
        manifest: What it says.
        rows: A row for every published image, in the order of the shards: columns that hold something, and where
            synthetic images come from (backbone, backbone_sha256, recipe).
    """

    store: Store
    manifest: Manifest
    rows: pa.Table

    @property
    def class_names(self) -> list[str]:
        """What each label means."""
        return [str(name) for name in self.manifest.class_names]

    def images(self) -> Iterator[ExportImage]:
        """Every published image once, a shard in memory at a time, in the order of `rows`.

        Raises:
            ValueError: A shard or an image is not the one that the manifest and the table name.
            StoreError: A shard cannot be read.
        """
        rows = (row for part in self.rows.to_batches(_ROWS_AT_ONCE) for row in part.to_pylist())
        for shard in self.manifest.shards:
            name = self.store.url(shard.path)
            data = self.store.read(shard.path)
            if sha256_hex(data) != shard.sha256:
                raise ValueError(f"{name} is not the shard that the manifest names; verify the run.")
            for sample in read_tar(data, name=name):
                fields: dict[str, Any] = next(rows, {})
                encoded = sample.encoded()
                if fields.get("key") != sample.key or fields["image_sha256"] != sha256_hex(encoded):
                    raise ValueError(f"{name}: {sample.key} is not the image that the table names; verify the run.")
                yield ExportImage(sample.key, encoded, sample.extension, sample.label, fields)


def manifest_url(run: str, *, store: str = "runs") -> str:
    """Where the manifest of a run lies.

    Args:
        run: Path or URL of a manifest.json or of the folder that it lies in, or a dataset's name in the store, whose
            latest run is meant.
        store: Folder or URL of all datasets.

    Raises:
        FileNotFoundError: There is no such run.
    """
    if PurePath(run).name == MANIFEST_FILE:
        return run
    if Store(run).exists(MANIFEST_FILE):
        return Store(run).url(MANIFEST_FILE)
    if "/" in run.rstrip("/") or run in {".", ".."}:
        raise FileNotFoundError(f"{run} has no {MANIFEST_FILE}; name the folder of a published run, or its dataset.")
    latest = read_latest(Store(store), run)
    if latest is None:
        raise FileNotFoundError(
            f"nothing of {run} is published in {Store(store).root}, and there is no such folder; name the dataset or "
            "the folder of a published run, and its --store."
        )
    return Store(store).url(f"{run}/{latest.manifest}")


def open_run_folder(url: str) -> OpenedRun:
    """Open a published run by its manifest.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The manifest or the table is damaged, or nothing is published.
    """
    folder, _, file_name = url.rpartition("/")
    store = Store(folder or ("/" if url.startswith("/") else "."))
    manifest = Manifest.from_json(store.read(file_name), name=url)
    name = store.url(manifest.metadata.path)
    data = store.read(manifest.metadata.path)
    if sha256_hex(data) != manifest.metadata.sha256:
        raise ValueError(f"{name} is not the table that the manifest names; verify the run.")
    rows = conform_rows(parse_table(data, name=name), name=name)
    rows = rows.filter(rows["kept"]).combine_chunks()
    if rows.num_rows == 0:
        raise ValueError(f"{url} names no published image, so there is nothing to export.")
    return OpenedRun(store, manifest, _with_provenance(_in_order_of_shards(rows), manifest))


def _in_order_of_shards(rows: pa.Table) -> pa.Table:
    """Shards are numbered in their names, and hold their images by key."""
    return rows.take(pc.sort_indices(rows, sort_keys=[("shard", "ascending"), ("key", "ascending")]))


def _with_provenance(rows: pa.Table, manifest: Manifest) -> pa.Table:
    """The columns that say something, and what made the synthetic images."""
    said = [name for name in rows.column_names if name not in _LEFT_OUT and rows[name].null_count < rows.num_rows]
    rows = rows.select(said)
    synthetic = pc.equal(rows["source"], "synthetic")
    nothing = pa.scalar(None, pa.string())
    for name, value in (
        ("backbone", manifest.backbone.get("name")),
        ("backbone_sha256", manifest.backbone.get("sha256")),
        ("recipe", manifest.recipe),
    ):
        if name not in rows.column_names and value is not None:
            rows = rows.append_column(name, pc.if_else(synthetic, pa.scalar(str(value)), nothing))
    return rows
