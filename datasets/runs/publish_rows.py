"""The rows of a run while it is published: read a part at a time, twice, so that they are never all in memory.

The first reading checks them and remembers of every kept row its key and label; samples then find their rows by key;
the second reading fills in where each image went and writes the table.
"""

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from datasets.runs.records import METADATA_SCHEMA
from datasets.runs.shards import Sample
from datasets.runs.tables import ROW_GROUP, TableWriter, conform_rows, replace_column

#: Gives the rows from the first to the last, in parts of any size; the same whenever it is called.
Rows = Callable[[], Iterable[pa.Table]]

_UNPLACED = -1
#: Parts that are held at once before they are joined.
_PIECES = 64


class PublishRows:
    """The rows of one publication.

    Args:
        rows: The rows, each part in columns of METADATA_SCHEMA; of a reviewed run, with the columns of the review.
        class_names: What each label means.
        name: What the table is called in errors.

    Attributes:
        num_rows: How many there are.
        digest: SHA-256 over all of them as they came; the same under every version of pyarrow.

    Raises:
        ValueError: A row breaks the schema, a key comes twice, or a label has no name.
    """

    def __init__(self, rows: Rows, *, class_names: Sequence[str], name: str) -> None:
        self._rows, self._name = rows, name
        self._by_class: Counter[tuple[int, str]] = Counter()
        self._by_group: Counter[tuple[str, str]] = Counter()
        self.num_rows = 0
        digest = hashlib.sha256()
        all_keys, kept_keys, labels = [_no_keys()], [_no_keys()], [np.zeros(0, dtype=np.int32)]
        for part in self._parts():
            _require_labels(part, class_names=class_names)
            for title, column in zip(part.column_names, part.columns, strict=True):
                _hash_column(digest, _as_hashed(title, column.combine_chunks()))
            self.num_rows += part.num_rows
            kept = part.filter(part["kept"])
            self._count(kept)
            all_keys.append(_keys_of(part))
            kept_keys.append(_keys_of(kept))
            labels.append(kept["label"].to_numpy())
        _require_distinct(np.concatenate(all_keys), name=name)
        self.digest = digest.hexdigest()
        self._keys, self._labels = np.concatenate(kept_keys), np.concatenate(labels)
        self._order = np.argsort(self._keys)
        self._shard = np.full(len(self._keys), _UNPLACED, dtype=np.int32)
        self._hash = np.zeros((len(self._keys), 32), dtype=np.uint8)

    def place(self, sample: Sample, *, shard: int, sha256: str) -> None:
        """Remember that a kept row's image is in this shard.

        Raises:
            ValueError: The sample has no kept row, another label than its row, or has been placed before.
        """
        row = self._find(sample.key)
        if row is None:
            raise ValueError(f"sample {sample.key} has no row with kept = True; publish kept candidates only.")
        if self._shard[row] != _UNPLACED:
            raise ValueError(f"sample {sample.key} comes twice; keys are unique in a run.")
        if self._labels[row] != sample.label:
            raise ValueError(
                f"sample {sample.key} has label {sample.label}, its row says {self._labels[row]}; make them agree."
            )
        self._shard[row] = shard
        self._hash[row] = np.frombuffer(bytes.fromhex(sha256), dtype=np.uint8)

    def require_all_placed(self) -> None:
        """Refuse kept rows whose image never came.

        Raises:
            ValueError: There are some.
        """
        absent = np.flatnonzero(self._shard == _UNPLACED)
        if len(absent):
            raise ValueError(
                f"{len(absent)} kept rows have no image, first {self._keys[absent[0]].decode()}; give every kept image."
            )

    def to_parquet(self, shard_paths: Sequence[str]) -> bytes:
        """The table as Parquet bytes, with `shard` and `image_sha256` of the kept rows filled in."""
        sink, done = io.BytesIO(), 0
        parts = self._parts()
        first = next(parts, METADATA_SCHEMA.empty_table())
        with TableWriter(sink, first.schema) as writer:
            for part in chain([first], parts):
                kept = part["kept"].to_numpy()
                of_part = slice(done, done + int(kept.sum()))
                writer.write(_place(part, kept, self._shard[of_part], self._hash[of_part], shard_paths=shard_paths))
                done = of_part.stop
        assert done == len(self._keys), "the rows are the same whenever they are read"
        return sink.getvalue()

    def counts(self, class_names: Sequence[str]) -> dict[str, dict[str, int]]:
        """Class name -> source -> kept rows."""
        return {
            name: {source: self._by_class[label, source] for source in ("real", "synthetic")}
            for label, name in enumerate(class_names)
        }

    def made(self, group: str) -> int:
        """Kept synthetic rows of a group."""
        return self._by_group["synthetic", group]

    def _parts(self) -> Iterator[pa.Table]:
        """The rows in their schema, a row group of the published file at a time."""
        waiting: list[pa.Table] = []
        for rows in self._rows():
            waiting.append(conform_rows(rows, name=self._name))
            if len(waiting) < _PIECES and rows.num_rows < ROW_GROUP:
                continue
            joined = pa.concat_tables(waiting).combine_chunks()  # many small pieces would weigh more than their rows
            while joined.num_rows > ROW_GROUP:
                yield joined.slice(0, ROW_GROUP)
                joined = joined.slice(ROW_GROUP)
            waiting = [joined]
        rest = pa.concat_tables(waiting or [METADATA_SCHEMA.empty_table()]).combine_chunks()
        for start in range(0, rest.num_rows, ROW_GROUP):
            yield rest.slice(start, ROW_GROUP)

    def _count(self, kept: pa.Table) -> None:
        source = kept["source"].to_pylist()
        self._by_class.update(zip(kept["label"].to_pylist(), source, strict=True))
        self._by_group.update(zip(source, kept["group"].to_pylist(), strict=True))

    def _find(self, key: str) -> int | None:
        name = key.encode()
        rank = int(np.searchsorted(self._keys, np.bytes_(name), sorter=self._order))
        if rank == len(self._keys) or self._keys[self._order[rank]] != name:
            return None
        return int(self._order[rank])


def _as_hashed(name: str, column: pa.Array) -> pa.Array:
    """A column's values; the sampler of real rows by its former name, so that a run that was published is the same."""
    return column if name != "sampler" else pc.if_else(pc.equal(column, "real"), "none", column)


def _hash_column(digest: Any, column: pa.Array) -> None:
    """Add the values of a column, nulls told from zeros and empty texts."""
    if pa.types.is_list(column.type):
        digest.update(pc.list_value_length(column).fill_null(-1).to_numpy().astype("<i4").tobytes())
        column = column.flatten()
    digest.update(np.packbits(column.is_valid().to_numpy(zero_copy_only=False)).tobytes())
    if pa.types.is_string(column.type):
        texts = [text.encode() for text in column.fill_null("").to_pylist()]
        digest.update(b"".join(len(text).to_bytes(8, "little") + text for text in texts))
        return
    values = column.fill_null(pa.scalar(0, column.type) if not pa.types.is_boolean(column.type) else False)
    numbers = values.to_numpy(zero_copy_only=False)
    digest.update(numbers.astype(numbers.dtype.newbyteorder("<")).tobytes())


def _no_keys() -> NDArray[np.bytes_]:
    return np.zeros(0, dtype="S1")


def _keys_of(table: pa.Table) -> NDArray[np.bytes_]:
    return np.array(table["key"].to_pylist(), dtype=np.bytes_) if table.num_rows else _no_keys()


def _require_distinct(keys: NDArray[np.bytes_], *, name: str) -> None:
    ordered = np.sort(keys)
    doubled = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(doubled):
        raise ValueError(f"{name} has the key {doubled[0].decode()!r} twice; keys are unique in a run.")


def _require_labels(part: pa.Table, *, class_names: Sequence[str]) -> None:
    labels = part["label"].to_numpy()
    nameless = np.flatnonzero((labels < 0) | (labels >= len(class_names)))
    if len(nameless):
        key, label = part["key"][int(nameless[0])].as_py(), labels[nameless[0]]
        raise ValueError(f"row {key} has label {label}, but {len(class_names)} classes have names; name all.")


def _place(
    part: pa.Table,
    kept: NDArray[np.bool_],
    shard: NDArray[np.int32],
    sha256: NDArray[np.uint8],
    *,
    shard_paths: Sequence[str],
) -> pa.Table:
    """Fill in where the images of a part's kept rows went, and their checksums."""
    shards: list[str | None] = [None] * part.num_rows
    hashes = part["image_sha256"].to_pylist()
    for row, in_shard, digest in zip(np.flatnonzero(kept).tolist(), shard.tolist(), sha256, strict=True):
        shards[row], hashes[row] = shard_paths[in_shard], digest.tobytes().hex()
    return replace_column(replace_column(part, "shard", values=shards), "image_sha256", values=hashes)
