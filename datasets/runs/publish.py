"""Publishing a run: shards, table, card, and the manifest as the last act; then the pointer to the latest run.

A publish that dies leaves no manifest, or the former, sound one; the same call again gives the same bytes. While one
publishes, `publishing.json` keeps everybody with other contents away from the run. A published run is never rewritten:
damaged files of it are made again as they were, and anything else is refused before a byte is written.
"""

import logging
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
from datasets.storage.checked import DamagedError
from datasets.storage.names import require_name
from datasets.storage.store import Store

CLAIM_FILE = "publishing.json"


class PublishConflictError(ValueError):
    """Another publisher is at work on the same run with other contents."""


class PublishedRunError(ValueError):
    """The run is published already, and what is to be published now is not that."""


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
        The manifest that was written, or that of the run where it was published already.

    Raises:
        PublishConflictError: Another publisher is at work on this run with other contents.
        PublishedRunError: The run is published with another recipe or other contents.
        ValueError: Samples and kept rows do not match one to one, labels differ, or a row breaks the schema; nothing
            is published then.
        StoreError: The store cannot be written; nothing is published then.
    """
    require_name("dataset", facts.dataset)
    if samples_per_shard < 1:
        raise ValueError(f"samples_per_shard must be at least 1, got {samples_per_shard}.")
    source = (lambda: [metadata]) if isinstance(metadata, pa.Table) else metadata
    rows = PublishRows(source, class_names=facts.class_names, name=METADATA_FILE)
    contents = _contents_of(rows, weights=weights, samples_per_shard=samples_per_shard)
    claim = canonical_json(
        {"recipe": facts.recipe, "contents": sha256_hex(canonical_json(asdict(facts) | {"contents": contents}))}
    )
    with _claimed(run_store, claim):
        earlier = _published(run_store)
        if earlier is not None:
            _require_same(run_store, earlier, recipe=facts.recipe, contents=contents)
            # It keeps telling what made it, whatever is installed now.
            facts = replace(
                facts,
                config=earlier.config,
                backbone=earlier.backbone,
                versions=earlier.versions,
                review=earlier.review,
            )
        manifest = earlier
        if earlier is None or not _is_whole(run_store, earlier):
            manifest = _write_all(
                _Writer(run_store, earlier),
                samples,
                facts=facts,
                rows=rows,
                weights=weights,
                samples_per_shard=samples_per_shard,
                contents=contents,
            )
            _require_claim(run_store, claim, manifest=manifest)
            run_store.write(MANIFEST_FILE, manifest.to_json())
        run_store.remove(CLAIM_FILE)
    assert manifest is not None, "it was there or has been written"
    return manifest


class _Writer:
    """Writes a run's files. Of a published run it writes again what is damaged, and nothing that would differ."""

    def __init__(self, store: Store, earlier: Manifest | None) -> None:
        self.store = store
        self._promised = {} if earlier is None else earlier.checksums()

    def write(self, path: str, data: bytes) -> None:
        """Write a file.

        Raises:
            PublishedRunError: The published manifest names other contents.
        """
        if self._promised and self._promised.get(path) != sha256_hex(data):
            raise PublishedRunError(
                f"{self.store.root} is published and damaged, and {path} cannot be made again as it was, perhaps for "
                "other versions of the packages; restore the run from a copy, or choose another run id."
            )
        self.store.write(path, data)

    def write_table(self, path: str, data: bytes, *, num_rows: int) -> MetadataEntry:
        """Write a table."""
        self.write(path, data)
        return MetadataEntry(path=path, num_rows=num_rows, bytes=len(data), sha256=sha256_hex(data))

    def card(self, text: bytes) -> bytes:
        """The card that is to be written: that of the published run where it is sound, whatever one would say now."""
        promised = self._promised.get(CARD_FILE)
        if promised is None or not self.store.exists(CARD_FILE):
            return text
        there = self.store.read(CARD_FILE)
        return there if sha256_hex(there) == promised else text

    def remove_strays(self, named: set[str]) -> None:
        """Remove tars of an earlier attempt that this one does not have."""
        for path in self.store.list("shards"):
            if path not in named:
                self.store.remove(path)


def _write_all(
    writer: _Writer,
    samples: Iterable[Sample],
    *,
    facts: RunFacts,
    rows: PublishRows,
    weights: pa.Table | None,
    samples_per_shard: int,
    contents: str,
) -> Manifest:
    """Write all files but the manifest, which is returned."""
    shards = _write_shards(writer, samples, facts=facts, rows=rows, samples_per_shard=samples_per_shard)
    writer.remove_strays({shard.path for shard in shards})
    counts, quotas = rows.counts(facts.class_names), _filled(facts.quotas, rows)
    text = card_text(
        facts, counts=counts, quotas=quotas, shards=shards, num_rows=rows.num_rows, weighted=weights is not None
    )
    table = rows.to_parquet([shard.path for shard in shards])
    metadata_entry = writer.write_table(METADATA_FILE, table, num_rows=rows.num_rows)
    weights_entry = None
    if weights is not None:
        weights_entry = writer.write_table(WEIGHTS_FILE, table_bytes(weights), num_rows=weights.num_rows)
    elif writer.store.exists(WEIGHTS_FILE):
        writer.store.remove(WEIGHTS_FILE)
    card = writer.card(text.encode())
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
        contents=contents,
        real_digest=facts.real_digest,
        review=facts.review,
    )


def _contents_of(rows: PublishRows, *, weights: pa.Table | None, samples_per_shard: int) -> str:
    """Digest of what is published, whatever versions of packages write it."""
    weighted = None if weights is None else [repr(row) for row in weights.to_pylist()]
    order = {"samples_per_shard": samples_per_shard, "rows": rows.digest, "weights": weighted}
    return sha256_hex(canonical_json(order))


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


def _published(store: Store) -> Manifest | None:
    """The run's manifest; None where there is none, or a damaged one, which is made again."""
    try:
        return Manifest.from_json(store.read(MANIFEST_FILE), name=store.url(MANIFEST_FILE))
    except FileNotFoundError:
        return None
    except DamagedError as error:
        logging.getLogger(__name__).warning("%s It is made again.", error)
        return None


def _require_same(store: Store, earlier: Manifest, *, recipe: str, contents: str) -> None:
    """Refuse to publish anything else over a published run.

    Raises:
        PublishedRunError: It has another recipe or other contents.
    """
    if earlier.recipe != recipe:
        difference = f"recipe {earlier.recipe}, this is recipe {recipe}"
    elif earlier.contents != contents:
        difference = "the same recipe but other rows, other sizes of shards or other weights"
    else:
        return
    raise PublishedRunError(
        f"{store.root} is published with {difference}; a published run is never rewritten: choose another run id."
    )


def _is_whole(store: Store, manifest: Manifest) -> bool:
    """Whether every file that a published manifest names is as it says, and no other lies among its shards."""
    named = manifest.checksums()
    try:
        return set(store.list("shards")) <= named.keys() and all(
            sha256_hex(store.read(path)) == sha256 for path, sha256 in named.items()
        )
    except FileNotFoundError:
        return False


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
