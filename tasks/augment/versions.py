"""A new version of a published run: without what people refused, filled again from the run's other candidates.

Nothing is drawn and nothing is evaluated anew. What was kept and is not refused stays; its freed places go to
candidates that passed every filter, under the rules of the first choice.
"""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from datasets.runs.latest import move_latest
from datasets.runs.manifest import MANIFEST_FILE, Review, RunFacts
from datasets.runs.publish import publish
from datasets.runs.runs import open_run, run_path
from datasets.runs.tables import replace_column
from datasets.storage.canonical import sha256_hex
from datasets.storage.store import Store
from tasks.augment.announcement import announce_dataset
from tasks.augment.candidates import choose_candidates, review_of
from tasks.augment.decisions import Decisions
from tasks.augment.kept_images import UnitImages, kept_samples
from tasks.augment.made_by import MadeBy
from tasks.augment.publishing import provenance_of
from tasks.errors import InputError
from tasks.inputs.published_run import PublishedRun
from tasks.inputs.workspace import open_workspace

#: Digits of the decisions' digest that a version's name ends in.
_DIGITS = 8


def publish_version(run: PublishedRun, decisions: Decisions, *, store: Store) -> str:
    """Publish what is left of a run after a review, and point the dataset's latest to it.

    The same decisions on the same run give the same version, which is then left as it is.

    Args:
        run: The published run that was looked at.
        decisions: What was said of its candidates; what was said of others in an earlier review holds on.
        store: The store of all datasets, in which the run lies.

    Returns:
        The manifest's URL.

    Raises:
        InputError: The units that hold the candidates are no longer there.
        ValueError: The version is being published by another with other contents.
    """
    table = run.table()
    decisions = decisions.over(table)
    manifest, units_of = run.manifest, run.unit_store.root.rpartition("/")[2]
    version = version_name(units_of, run, decisions)
    _require_units(run, table)
    rows = _reviewed_rows(run, table, decisions, store=store)
    review = Review(
        decided_by=decisions.people,
        decisions=decisions.sha256,
        units_of=units_of,
        version_of=manifest.run_id,
        version_of_manifest=sha256_hex(run.store.read(MANIFEST_FILE)),
    )
    facts = RunFacts(
        dataset=manifest.dataset,
        run_id=version,
        recipe=manifest.recipe,
        config=manifest.config,
        backbone=manifest.backbone,
        versions=manifest.versions,
        class_names=manifest.class_names,
        quotas={group: quota["asked"] for group, quota in manifest.quotas.items()},
        real_digest=manifest.real_digest,
        provenance=provenance_of(run.real.licence, str(manifest.backbone.get("name")), config=run.config),
        real_images=run.real.account.to_markdown(examples=False),
        review=review,
    )
    version_store = open_run(
        store,
        manifest.dataset,
        version,
        recipe=manifest.recipe,
        config=manifest.config,
        real_digest=manifest.real_digest,
    )
    published = publish(
        version_store,
        facts=facts,
        samples=kept_samples(
            run.unit_store,
            [_units(rows, "real"), _units(rows, "minority")],
            made_by=MadeBy.told(run.config, recipe=manifest.recipe, backbone=manifest.backbone),
        ),
        metadata=rows,
        samples_per_shard=run.config.publish.samples_per_shard,
    )
    latest = move_latest(store, manifest.dataset, version)
    url = store.url(f"{run_path(manifest.dataset, version)}/{MANIFEST_FILE}")
    announce_dataset(published, url=url, latest=latest)
    return url


def _require_units(run: PublishedRun, table: pa.Table) -> None:
    names = set(table["unit"].to_pylist())
    missing = sorted(name for name in names if not run.unit_store.exists(f"units/{name}.tar"))
    if missing:
        raise InputError(
            f"{run.unit_store.url('units')} lacks {len(missing)} of {len(names)} units, first {missing[0]}, so the "
            "candidates are gone, perhaps by `minority clean`; run the same augment command again to make them anew."
        )


def version_name(units_of: str, run: PublishedRun, decisions: Decisions) -> str:
    """What the version is called: the run that drew the candidates, and digits of what was said of which run."""
    said = sha256_hex(f"{run.manifest.run_id} {decisions.sha256}".encode())
    name = f"{units_of}-r{said[:_DIGITS]}"
    if len(name) > 64:
        raise InputError(f"run id {units_of} is too long to name a version after; run it again under a shorter one.")
    return name


def _reviewed_rows(run: PublishedRun, table: pa.Table, decisions: Decisions, *, store: Store) -> pa.Table:
    """All rows with the choice after the review; where each image goes is filled in when it is published."""
    config = run.config.model_copy(update={"store": store.root})
    spacing = open_workspace(config).spacing if config.selection.diverse else None
    is_candidate = pc.equal(table["sampler"], "minority")
    candidates = table.filter(is_candidate)
    quotas = run.manifest.quotas
    chosen = choose_candidates(
        candidates,
        groups=list(quotas),
        wanted=[quota["asked"] for quota in quotas.values()],
        policy=config.selection.policy,
        spacing=spacing,
        reviewed=review_of(candidates, decisions),
    )
    for name in ("kept", "reason"):
        column = table[name].combine_chunks()
        column = pc.replace_with_mask(column, is_candidate.combine_chunks(), chosen[name].combine_chunks())
        table = replace_column(table, name, values=column)
    nowhere = pa.nulls(table.num_rows, pa.string())
    return decisions.add_columns(replace_column(table, "shard", values=nowhere))


def _units(rows: pa.Table, sampler: str) -> Sequence[UnitImages]:
    """Which images of every unit of a sampler are published, in the order of the table."""
    rows = rows.filter(pc.equal(rows["sampler"], sampler))
    kept_of: dict[str, list[bool]] = {}
    for unit, kept in zip(rows["unit"].to_pylist(), rows["kept"].to_pylist(), strict=True):
        kept_of.setdefault(unit, []).append(kept)
    return [UnitImages(unit, kept) for unit, kept in kept_of.items()]
