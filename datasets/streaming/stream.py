"""Published samples as a stream: shards are walked, never indexed, so that memory does not grow with the dataset.

A shard is checked against the manifest before its first sample is given, once a process: it is read through in pieces,
and then walked. So no flipped bit of an image or a label is ever trained on.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from datasets.readers.images.encoding import EXTENSIONS, decode_image
from datasets.readers.tars.tar_index import Member, walk_members
from datasets.runs.manifest import Manifest
from datasets.storage.canonical import parse_json
from datasets.storage.store import Store
from datasets.streaming.stream_plan import Segment, balanced_rates, epoch_order, natural_rates, repeats, segments

_SHUFFLE_STREAM = 17
_PIECE = 1 << 20  # bytes


@dataclass(frozen=True, kw_only=True)
class StreamSettings:
    """In which order and mixture samples come.

    Attributes:
        order: "natural": every sample once an epoch. "balanced": every group equally often; small groups are repeated.
        synthetic_share: Share of synthetic samples in [0, 1]; None leaves the mixture as it was published.
        shuffle_buffer: Samples held back to be mixed; 0 keeps the order of the shards.
        open_shards: Shards read at a time and mixed, at least 1; 1 where shuffle_buffer is 0.
        seed: Same seed, epoch and number of consumers, same order.
    """

    order: str = "natural"
    synthetic_share: float | None = None
    shuffle_buffer: int = 1000
    open_shards: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.order not in {"natural", "balanced"}:
            raise ValueError(f"StreamSettings.order must be natural or balanced, got {self.order!r}.")
        if self.synthetic_share is not None and not 0 <= self.synthetic_share <= 1:
            raise ValueError(f"StreamSettings.synthetic_share must be in [0, 1] or None, got {self.synthetic_share}.")
        for name, least in (("shuffle_buffer", 0), ("open_shards", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"StreamSettings.{name} must be at least {least}, got {getattr(self, name)}.")


@dataclass(frozen=True, eq=False)
class StreamedSample:
    """A sample on its way: its key, its members still encoded, and its number among the consumer's samples."""

    key: str
    fields: Mapping[str, bytes]
    record: Mapping[str, Any]
    serial: int

    @property
    def label(self) -> int:
        """Class index."""
        digits = self.fields["cls"].strip()
        if not digits.isdigit() or len(digits) > 9:
            raise ValueError(f"{self.key}.cls is {digits[:20]!r}, expected a class index; verify the published run.")
        return int(digits)

    def pixels(self) -> NDArray[np.uint8]:
        """The image, uint8 (H, W, C). ValueError where it cannot be decoded."""
        extension = next((name for name in EXTENSIONS if name in self.fields), None)
        if extension is None:
            raise ValueError(f"sample {self.key} has no image; verify the published run.")
        return decode_image(self.fields[extension], extension, name=f"{self.key}.{extension}")


class PublishedStream:
    """The samples of a published run, an epoch at a time. Picklable; holds the manifest, and which shards are sound."""

    def __init__(self, manifest_url: str, settings: StreamSettings) -> None:
        """Read the manifest and, where groups or sources matter, count them in the table.

        Args:
            manifest_url: File name or URL of the run's manifest.
            settings: Order and mixture.

        Raises:
            FileNotFoundError: There is no manifest.
            ValueError: It is damaged, names no sample, or the mixture cannot be had.
        """
        folder, _, file_name = str(manifest_url).rpartition("/")
        self.store = Store(folder or ("/" if str(manifest_url).startswith("/") else "."))
        self.manifest = Manifest.from_json(self.store.read(file_name), name=str(manifest_url))
        self.settings = settings
        self._sound: set[str] = set()
        if not self.manifest.shards or not sum(shard.num_samples for shard in self.manifest.shards):
            raise ValueError(f"{manifest_url} names no published image; publish some.")
        self.sizes: dict[tuple[str, str], int] | None = None
        self.rates: dict[tuple[str, str], float] | None = None
        if settings.order == "balanced":
            self.sizes = group_sizes(self.store, self.manifest)
            self.rates = balanced_rates(self.sizes, synthetic_share=settings.synthetic_share)
        elif settings.synthetic_share is not None:
            self.sizes = group_sizes(self.store, self.manifest)
            self.rates = natural_rates(self.sizes, synthetic_share=settings.synthetic_share)

    @property
    def expected_samples(self) -> float:
        """Samples an epoch over all consumers; exact in natural order without a mixture, else the expected number."""
        if self.rates is None or self.sizes is None:
            return float(sum(shard.num_samples for shard in self.manifest.shards))
        return math.fsum(rate * self.sizes[name] for name, rate in self.rates.items())

    def samples(
        self, *, epoch: int = 0, consumer: int = 0, num_consumers: int = 1, skip: int = 0
    ) -> Iterator[StreamedSample]:
        """One consumer's samples of one epoch.

        Args:
            epoch: Which; each has an order of its own.
            consumer: Which of the consumers, in [0, num_consumers).
            num_consumers: All workers of all nodes together.
            skip: Samples that were seen before an interruption; they are passed over.

        Raises:
            ValueError: A shard is not the file that the manifest names; none of its samples is given.
            StoreError: A shard cannot be read.
        """
        raw = self._repeated(self._interleaved(epoch, consumer, num_consumers), epoch)
        mixed = self._shuffled(raw, np.random.default_rng([self.settings.seed, epoch, consumer, _SHUFFLE_STREAM]))
        for serial, (key, fields, record) in enumerate(mixed):
            if serial >= skip:
                yield StreamedSample(key=key, fields=fields, record=record, serial=serial)

    def _interleaved(self, epoch: int, consumer: int, num_consumers: int) -> Iterator[tuple[str, dict[str, bytes]]]:
        """Raw samples, from several shards in turn."""
        shards = self.manifest.shards
        shuffle = self.settings.shuffle_buffer > 0
        order = epoch_order(len(shards), seed=self.settings.seed, epoch=epoch, shuffle=shuffle)
        waiting = segments(
            [shard.num_samples for shard in shards], order, consumer=consumer, num_consumers=num_consumers
        )
        width = self.settings.open_shards if shuffle else 1
        with ExitStack() as stack:
            active = [self._opened(segment, stack) for segment in waiting[:width]]
            waiting = waiting[width:]
            while active:
                for reader in list(active):
                    sample = next(reader, None)
                    if sample is not None:
                        yield sample
                    elif waiting:
                        active[active.index(reader)] = self._opened(waiting.pop(0), stack)
                    else:
                        active.remove(reader)

    def _opened(self, segment: Segment, stack: ExitStack) -> Iterator[tuple[str, dict[str, bytes]]]:
        reader = self._segment(segment)
        stack.callback(reader.close)
        return reader

    def _segment(self, segment: Segment) -> Any:
        shard = self.manifest.shards[segment.shard]
        with self.store.open_read(shard.path) as file:
            if shard.path not in self._sound:
                _require_promised(file, name=self.store.url(shard.path), size=shard.bytes, sha256=shard.sha256)
                self._sound.add(shard.path)
            yield from _read_segment(file, segment, name=self.store.url(shard.path), num_samples=shard.num_samples)

    def _repeated(
        self, raw: Iterator[tuple[str, dict[str, bytes]]], epoch: int
    ) -> Iterator[tuple[str, dict[str, bytes], dict[str, Any]]]:
        for key, fields in raw:
            if "cls" not in fields or "json" not in fields:
                raise ValueError(f"sample {key} lacks its cls or json; verify the published run.")
            record = parse_json(fields["json"], name=f"{key}.json")
            times = 1
            if self.rates is not None:
                named = (str(record.get("group")), str(record.get("source")))
                if named not in self.rates:
                    raise ValueError(f"{key}.json says group {named[0]!r} and source {named[1]!r}, which no row has.")
                times = repeats(self.rates[named], key=key, seed=self.settings.seed, epoch=epoch)
            for _ in range(times):
                yield key, fields, record

    def _shuffled(self, items: Iterator[Any], rng: np.random.Generator) -> Iterator[Any]:
        held: list[Any] = []
        for item in items:
            if len(held) < self.settings.shuffle_buffer:
                held.append(item)
                continue
            if not held:
                yield item
                continue
            slot = int(rng.integers(len(held)))
            held[slot], item = item, held[slot]
            yield item
        for slot in rng.permutation(len(held)):
            yield held[slot]


def group_sizes(store: Store, manifest: Manifest) -> dict[tuple[str, str], int]:
    """(group, source) -> published samples, counted in the table a few thousand rows at a time.

    Raises:
        ValueError: The table is not the file that the manifest names, or cannot be read.
    """
    counted: Counter[tuple[str, str]] = Counter()
    entry = manifest.metadata
    path = entry.path
    try:
        with store.open_read(path) as file:
            _require_promised(file, name=store.url(path), size=entry.bytes, sha256=entry.sha256)
            for batch in pq.ParquetFile(file).iter_batches(batch_size=8192, columns=["group", "source", "kept"]):
                kept = batch.filter(batch["kept"])
                counted.update(zip(kept["group"].to_pylist(), kept["source"].to_pylist(), strict=True))
    except (pa.ArrowException, KeyError) as error:
        raise ValueError(f"{store.url(path)} cannot be read ({error}); verify the published run.") from error
    return dict(counted)


def _require_promised(file: IO[bytes], *, name: str, size: int, sha256: str) -> None:
    """Refuse a file that is not what the manifest says; afterwards it stands at its beginning again."""
    if file.seek(0, 2) != size:
        raise ValueError(f"{name} has {file.tell()} bytes, the manifest says {size}; verify the published run.")
    file.seek(0)
    digest = hashlib.sha256()
    while piece := file.read(_PIECE):
        digest.update(piece)
    if digest.hexdigest() != sha256:
        raise ValueError(f"{name} is not the file whose SHA-256 the manifest gives; verify the published run.")
    file.seek(0)


def _read_segment(
    file: IO[bytes], segment: Segment, *, name: str, num_samples: int
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The samples of a segment; what lies before it is passed over by its headers."""
    number = -1
    key = ""
    fields: dict[str, bytes] = {}
    for member in walk_members(file, name=name):
        stem, _, extension = member.name.partition(".")
        if stem != key:
            if number >= segment.first:
                yield key, fields
            number += 1
            key, fields = stem, {}
            if number == segment.last:
                break
        if number >= segment.first:
            fields[extension] = _content(file, member)
    else:
        if number >= segment.first:
            yield key, fields
    last = number + 1  # with the one that follows the segment, where there is one
    if last < segment.last or (segment.last == num_samples and last != num_samples):
        raise ValueError(
            f"{name} has {last} samples{' or more' * (last > num_samples)}, the manifest says {num_samples}; "
            "verify the published run."
        )


def _content(file: IO[bytes], member: Member) -> bytes:
    file.seek(member.offset)
    return file.read(member.size)
