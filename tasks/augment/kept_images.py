"""The images that are published, in their order: real and synthetic ones evenly interleaved."""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress

from datasets.runs.shards import Sample
from datasets.runs.units import read_encoded_unit
from datasets.storage.store import Store
from tasks.augment.made_by import MadeBy

_RECORD = ("source", "sampler", "source_id", "sample_index", "seed", "label_name", "group")


@dataclass(frozen=True)
class UnitImages:
    """Which images of a unit are published.

    Attributes:
        unit: Its name.
        kept: One bool an image, in the unit's order.
    """

    unit: str
    kept: Sequence[bool]


def kept_samples(
    store: Store, streams: Sequence[Sequence[UnitImages]], *, made_by: MadeBy | None = None
) -> Iterator[Sample]:
    """Read the published images unit by unit, each stream in its order, evenly interleaved.

    Args:
        store: The store of the run that has the units.
        streams: Units of one kind each: real images, candidates.
        made_by: What synthetic images say of themselves; None: nothing.
    """
    counts = [sum(sum(unit.kept) for unit in stream) for stream in streams]
    samples = [_stream(store, stream, made_by) for stream in streams]
    for _, which in heapq.merge(*(_positions(count, which) for which, count in enumerate(counts))):
        yield next(samples[which])


def _positions(count: int, which: int) -> Iterator[tuple[float, int]]:
    return (((i + 0.5) / count, which) for i in range(count))


def _stream(store: Store, units: Sequence[UnitImages], made_by: MadeBy | None) -> Iterator[Sample]:
    """The kept images; units without any are not read."""
    for unit in units:
        if not any(unit.kept):
            continue
        images, rows = read_encoded_unit(store, unit.unit)
        records = rows.select(["key", "label", "edited_source_id", *_RECORD]).to_pylist()
        for image, record in compress(zip(images, records, strict=True), unit.kept):
            yield Sample(
                key=record["key"],
                image=made_by.told_in(image, record) if made_by and record["source"] == "synthetic" else image,
                label=record["label"],
                record=_in_tar({name: record[name] for name in _RECORD if record[name] is not None}),
            )


def _in_tar(record: dict[str, object]) -> dict[str, object]:
    """The JSON beside an image; the sampler of real ones is "none" there, so that the bytes of shards stay the same."""
    return record | {"sampler": "none"} if record["sampler"] == "real" else record
