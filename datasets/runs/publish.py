"""Publishing a run: shards, table, card, and the manifest as the last act; then the pointer to the latest run.

A publish that dies leaves no manifest, or the former, sound one; the same call again gives the same bytes. While one
publishes, `publishing.json` keeps everybody with other contents away from the run.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from itertools import islice

import pyarrow as pa

from datasets.runs.card import card_text
from datasets.runs.manifest import (
    CARD_FILE,
    MANIFEST_FILE,
    METADATA_FILE,
    WEIGHTS_FILE,
    CardEntry,
    Manifest,
    MetadataEntry,
    RunFacts,
    ShardEntry,
)
from datasets.runs.publish_rows import PublishRows, Rows
from datasets.runs.shards import Sample, tar_bytes
from datasets.runs.tables import table_bytes
from datasets.storage.canonical import canonical_json, sha256_hex
from datasets.storage.names import require_name
from datasets.storage.store import Store

CLAIM_FILE = "publishing.json"


class PublishConflictError(ValueError):
    """Another publisher is at work on the same run with other contents."""


def publish(
    run_store: Store,
    *,
    facts: RunFacts,
    samples: Iterable[Sample],
    metadata: pa.Table | Rows,
    samples_per_shard: int = 1000,
    weights: pa.Table | None = None,
) -> Manifest:
    """Publish a run's kept images and all its rows.

    The columns `shard` and `image_sha256` of published rows are filled in. Samples are taken one shard at a time, in
    the order given: that order decides which shard a sample is in and must be the same in every attempt.

    Args:
        run_store: The run's store.
        facts: What is to be said about the run.
        samples: The kept images, one for each row with kept = True.
        metadata: One row of METADATA_SCHEMA a candidate, kept or not: a table, or what gives them a part at a time, so
            that they are never all in memory; it is called twice.
        samples_per_shard: Images a tar, at least 1.
        weights: One row of WEIGHTS_SCHEMA a published image; None writes no such file.

    Returns:
        The manifest that was written.

    Raises:
        PublishConflictError: Another publisher is at work on this run with other contents.
        ValueError: Samples and kept rows do not match one to one, labels differ, or a row breaks the schema; nothing
            is published then.
        StoreError: The store cannot be written; nothing is published then.
    """
    require_name("dataset", facts.dataset)
    if samples_per_shard < 1:
        raise ValueError(f"samples_per_shard must be at least 1, got {samples_per_shard}.")
    source = (lambda: [metadata]) if isinstance(metadata, pa.Table) else metadata
    rows = PublishRows(source, class_names=facts.class_names, name=METADATA_FILE)
    claim = _claim_of(facts=facts, rows=rows, weights=weights, samples_per_shard=samples_per_shard)
    with _claimed(run_store, claim):
        manifest = _write_all(
            run_store, samples, facts=facts, rows=rows, weights=weights, samples_per_shard=samples_per_shard
        )
        _require_claim(run_store, claim, manifest=manifest)
        run_store.write(MANIFEST_FILE, manifest.to_json())
        run_store.remove(CLAIM_FILE)
    return manifest


def _write_all(
    run_store: Store,
    samples: Iterable[Sample],
    *,
    facts: RunFacts,
    rows: PublishRows,
    weights: pa.Table | None,
    samples_per_shard: int,
) -> Manifest:
    """Write all files but the manifest, which is returned."""
    writer = _Writer(run_store)
    shards = _write_shards(writer, samples, facts=facts, rows=rows, samples_per_shard=samples_per_shard)
    writer.remove_strays({shard.path for shard in shards})
    counts, quotas = rows.counts(facts.class_names), _filled(facts.quotas, rows)
    card = card_text(
        facts, counts=counts, quotas=quotas, shards=shards, num_rows=rows.num_rows, weighted=weights is not None
    ).encode()
    table = rows.to_parquet([shard.path for shard in shards])
    metadata_entry = writer.write_table(METADATA_FILE, table, num_rows=rows.num_rows)
    weights_entry = None
    if weights is not None:
        weights_entry = writer.write_table(WEIGHTS_FILE, table_bytes(weights), num_rows=weights.num_rows)
    elif run_store.exists(WEIGHTS_FILE):
        writer.remove(WEIGHTS_FILE)
    writer.write(CARD_FILE, card)
    return Manifest(
        dataset=facts.dataset,
        run_id=facts.run_id,
        recipe=facts.recipe,
        config=dict(facts.config),
        backbone=dict(facts.backbone),
        versions=dict(facts.versions),
        class_names=list(facts.class_names),
        counts=counts,
        quotas=quotas,
        shards=shards,
        metadata=metadata_entry,
        card=CardEntry(path=CARD_FILE, sha256=sha256_hex(card)),
        weights=weights_entry,
    )


def _claim_of(*, facts: RunFacts, rows: PublishRows, weights: pa.Table | None, samples_per_shard: int) -> bytes:
    """What is being published. Several may publish equal contents at once, since they write equal bytes."""
    order = {"facts": asdict(facts), "samples_per_shard": samples_per_shard, "rows": rows.digest}
    contents = canonical_json(order) + (b"" if weights is None else table_bytes(weights))
    return canonical_json({"recipe": facts.recipe, "contents": sha256_hex(contents)})


@contextmanager
def _claimed(store: Store, claim: bytes) -> Iterator[None]:
    if not store.create(CLAIM_FILE, claim):
        _require_claim(store, claim, manifest=None)
    try:
        yield
    except PublishConflictError:
        raise
    except (ValueError, OSError):
        # Whoever corrects the fault may come with other contents.
        with suppress(OSError):
            store.remove(CLAIM_FILE)
        raise


def _require_claim(store: Store, claim: bytes, *, manifest: Manifest | None) -> None:
    """Refuse to go on where another publisher has the run, or had it and finished it meanwhile."""
    try:
        held = store.read(CLAIM_FILE)
    except FileNotFoundError:
        held = None
    finished_by_another = False
    if held is None and manifest is not None and store.exists(MANIFEST_FILE):
        finished_by_another = store.read(MANIFEST_FILE) != manifest.to_json()
    if finished_by_another or (held is not None and held != claim):
        raise PublishConflictError(
            f"{store.root} is being published with other contents by another publisher; choose another run id, or "
            f"remove {CLAIM_FILE} there if that publisher is dead."
        )


class _Writer:
    """Writes a run's files; takes an older manifest away before the first file that would contradict it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._promised = _promised_files(store)

    def write(self, path: str, data: bytes) -> None:
        self._withdraw_unless(self._promised is None or self._promised.get(path) == sha256_hex(data))
        self._store.write(path, data)

    def write_table(self, path: str, data: bytes, *, num_rows: int) -> MetadataEntry:
        self.write(path, data)
        return MetadataEntry(path=path, num_rows=num_rows, bytes=len(data), sha256=sha256_hex(data))

    def remove_strays(self, named: set[str]) -> None:
        """Remove tars of an earlier attempt that this one does not have."""
        for path in self._store.list("shards"):
            if path not in named:
                self.remove(path)

    def remove(self, path: str) -> None:
        self._withdraw_unless(self._promised is None or path not in self._promised)
        self._store.remove(path)

    def _withdraw_unless(self, consistent: bool) -> None:
        if not consistent:
            self._store.remove(MANIFEST_FILE)
            self._promised = None


def _promised_files(store: Store) -> dict[str, str] | None:
    """Path -> SHA-256 as an older manifest has it; None where there is none, {} where it cannot be read."""
    if not store.exists(MANIFEST_FILE):
        return None
    try:
        manifest = Manifest.from_json(store.read(MANIFEST_FILE))
    except ValueError:
        return {}
    return manifest.checksums()


def _write_shards(
    writer: _Writer, samples: Iterable[Sample], *, facts: RunFacts, rows: PublishRows, samples_per_shard: int
) -> list[ShardEntry]:
    """Write the shards, and tell the rows where their images are."""
    shards: list[ShardEntry] = []
    for batch in _batches(samples, size=samples_per_shard):
        path = f"shards/{facts.dataset}-{len(shards):06d}.tar"
        encoded = [replace(sample, image=sample.encoded()) for sample in batch]
        for sample in encoded:
            rows.place(sample, shard=len(shards), sha256=sha256_hex(sample.encoded()))
        tar = tar_bytes(encoded)
        writer.write(path, tar)
        shards.append(ShardEntry(path=path, num_samples=len(encoded), bytes=len(tar), sha256=sha256_hex(tar)))
    rows.require_all_placed()
    return shards


def _batches(samples: Iterable[Sample], *, size: int) -> Iterator[list[Sample]]:
    iterator = iter(samples)
    while batch := list(islice(iterator, size)):
        yield batch


def _filled(asked: Mapping[str, int], rows: PublishRows) -> dict[str, dict[str, int]]:
    """Asked, kept and missing synthetic images by group."""
    return {
        group: {"asked": count, "kept": rows.made(group), "shortfall": max(0, count - rows.made(group))}
        for group, count in asked.items()
    }
