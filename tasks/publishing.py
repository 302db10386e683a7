"""Publishing a run: kept images into shards, every candidate into the table, the manifest last."""

import importlib.metadata
from collections.abc import Iterator, Sequence

import pyarrow as pa
from prefect import task
from prefect.logging import get_run_logger

from datasets.latest import move_latest
from datasets.manifest import MANIFEST_FILE, Manifest, RunFacts
from datasets.publish import publish
from datasets.shards import Sample
from datasets.store import Store
from datasets.units import read_unit
from tasks.announcement import announce_dataset
from tasks.candidates import choose_candidates, name_near_duplicates, read_rows
from tasks.config import AugmentConfig
from tasks.failures import TRIED_AGAIN
from tasks.generation import open_run_store, published_config
from tasks.planning import UnitPlan, quotas
from tasks.workspace import Workspace, open_workspace

_PACKAGES = ("diffusers", "numpy", "pillow", "pyarrow", "scikit-learn", "torch")
_RECORD = ("source", "sampler", "source_id", "sample_index", "seed", "label_name", "group")


@task(**TRIED_AGAIN)
def publish_run(config: AugmentConfig, plans: Sequence[UnitPlan]) -> str:
    """Publish what the planned units hold. Returns the manifest's URL; the same call again changes nothing."""
    workspace = open_workspace(config)
    store = open_run_store(workspace)
    manifest = publish_plans(workspace, store, plans)
    latest = move_latest(workspace.store, config.name, workspace.run_id)
    url = store.url(MANIFEST_FILE)
    get_run_logger().info("published %d shards: %s", len(manifest.shards), url)
    announce_dataset(manifest, url=url, latest=latest)
    return url


def publish_plans(workspace: Workspace, store: Store, plans: Sequence[UnitPlan]) -> Manifest:
    """Choose among the candidates of all units and write the dataset."""
    real, config = workspace.real, workspace.config
    wanted = quotas(real, config.plan)
    facts = RunFacts(
        dataset=config.name,
        run_id=workspace.run_id,
        recipe=workspace.recipe,
        config=published_config(config),
        backbone={"name": workspace.backbone.name, "sha256": workspace.backbone.sha256},
        versions={package: importlib.metadata.version(package) for package in _PACKAGES},
        class_names=list(real.train.class_names),
        quotas=dict(zip(real.groups, wanted, strict=True)),
        provenance=f"Real images: {real.licence} Synthetic images: drawn by the backbone {workspace.backbone.name}, "
        "which was trained on the training split alone.",
    )
    rows = all_rows(workspace, store, plans)
    return publish(
        store,
        facts=facts,
        samples=_kept_samples(rows, store, plans),
        metadata=rows,
        samples_per_shard=config.publish.samples_per_shard,
    )


def all_rows(workspace: Workspace, store: Store, plans: Sequence[UnitPlan]) -> pa.Table:
    """The rows of all units with the final choice: real images, candidates, baseline."""
    parts = []
    for sampler in ("none", "minority", "plain"):
        rows = read_rows(store, [plan for plan in plans if plan.sampler == sampler])
        if rows is not None and sampler == "minority":
            rows = choose_candidates(
                rows,
                groups=workspace.real.groups,
                wanted=quotas(workspace.real, workspace.config.plan),
                spacing=workspace.spacing,
            )
            rows = name_near_duplicates(rows, radius=workspace.judge.thresholds["nearest_distance"])
        if rows is not None:
            parts.append(rows)
    return pa.concat_tables(parts)


def _kept_samples(rows: pa.Table, store: Store, plans: Sequence[UnitPlan]) -> Iterator[Sample]:
    """Real and synthetic images, each stream in the order of its units, evenly interleaved."""
    kept = {key for key, is_kept in zip(rows["key"].to_pylist(), rows["kept"].to_pylist(), strict=True) if is_kept}
    streams = [
        (sum(1 for key in kept if key.startswith("real-") == (sampler == "none")), _stream(store, plans, sampler, kept))
        for sampler in ("none", "minority")
    ]
    places = sorted(((i + 0.5) / count, which) for which, (count, _) in enumerate(streams) for i in range(count))
    for _, which in places:
        yield next(streams[which][1])


def _stream(store: Store, plans: Sequence[UnitPlan], sampler: str, kept: set[str]) -> Iterator[Sample]:
    for plan in plans:
        if plan.sampler != sampler:
            continue
        images, rows = read_unit(store, plan.unit)
        records = rows.select(["key", "label", *_RECORD]).to_pylist()
        for image, record in zip(images, records, strict=True):
            if record["key"] in kept:
                yield Sample(
                    key=record["key"],
                    image=image,
                    label=record["label"],
                    record={name: record[name] for name in _RECORD if record[name] is not None},
                )
