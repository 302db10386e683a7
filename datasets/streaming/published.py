"""A published run as a set of images again: any image at any time, by its row in the table.

To read a run from end to end, stream it (`datasets.streaming.stream`); this keeps the table's rows in memory.
"""

from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from datasets.readers.images.encoding import EXTENSIONS, decode_image
from datasets.readers.imageset import ImageSet
from datasets.readers.tars.tar_index import Member, walk_members
from datasets.runs.manifest import Manifest
from datasets.runs.tables import conform_rows, parse_table
from datasets.storage.canonical import sha256_hex
from datasets.storage.store import Store


def read_published(manifest_url: str, *, source: str | None = None) -> ImageSet:
    """Read the published images of a run.

    Args:
        manifest_url: File name or URL of the run's manifest.
        source: "real" or "synthetic"; None takes both.

    Returns:
        The set in the order of the table; source ids are the keys, and the attribute "source" tells real from
        synthetic. Each image is checked against its SHA-256 when it is read.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The manifest, the table or the first image is damaged, or nothing is published of that source.
    """
    folder, _, file_name = str(manifest_url).rpartition("/")
    store = Store(folder or ("/" if str(manifest_url).startswith("/") else "."))
    manifest = Manifest.from_json(store.read(file_name), name=str(manifest_url))
    name = store.url(manifest.metadata.path)
    data = store.read(manifest.metadata.path)
    if sha256_hex(data) != manifest.metadata.sha256:
        raise ValueError(f"{name} is not the table that the manifest names; verify the run.")
    rows = conform_rows(parse_table(data, name=name), name=name)
    rows = rows.filter(rows["kept"])
    if source is not None:
        rows = rows.filter(pc.equal(rows["source"], source))
    if rows.num_rows == 0:
        raise ValueError(f"{manifest_url} names no published image of source {source or 'any'}.")
    keys = rows["key"].to_pylist()
    load = _PublishedImages(store, keys, rows["shard"].to_pylist(), rows["image_sha256"].to_pylist())
    return ImageSet(
        name=manifest.dataset,
        labels=rows["label"].to_numpy().astype(np.int64),
        groups=rows["group"].to_pylist(),
        source_ids=keys,
        class_names=[str(class_name) for class_name in manifest.class_names],
        image_shape=load(0).shape,
        load=load,
        attributes={"source": rows["source"].to_pylist()},
    )


class _PublishedImages:
    """Finds images in the tars by their headers, which are walked when a shard is first needed."""

    def __init__(self, store: Store, keys: list[str], shards: list[str], checksums: list[str]) -> None:
        self._store, self._keys, self._shards, self._checksums = store, keys, shards, checksums
        self._members: dict[str, dict[str, Member]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_members": {}}

    def __call__(self, index: int) -> NDArray[np.uint8]:
        key, shard = self._keys[index], self._shards[index]
        name = f"{self._store.url(shard)}: {key}"
        with self._store.open_read(shard) as file:
            if shard not in self._members:
                members = walk_members(file, name=self._store.url(shard))
                self._members[shard] = {member.name: member for member in members}
            in_shard = self._members[shard]
            extension = next((end for end in EXTENSIONS if f"{key}.{end}" in in_shard), None)
            if extension is None:
                raise ValueError(f"{name} has no image; verify the run.")
            member = in_shard[f"{key}.{extension}"]
            file.seek(member.offset)
            data = file.read(member.size)
        if sha256_hex(data) != self._checksums[index]:
            raise ValueError(f"{name} is not the image whose SHA-256 its row gives; verify the run.")
        return decode_image(data, extension, name=name)
