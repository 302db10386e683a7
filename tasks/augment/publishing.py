"""Publishing a run: kept images into shards, every candidate into the table, the manifest last."""

import importlib.metadata
from collections.abc import Iterator, Sequence

import pyarrow as pa
from prefect import task
from prefect.logging import get_run_logger

from datasets.runs.latest import move_latest
from datasets.runs.manifest import MANIFEST_FILE, Manifest, Review, RunFacts
from datasets.runs.publish import publish
from datasets.runs.tables import replace_column
from datasets.runs.units import read_unit_rows, receipt_of
from datasets.storage.store import Store
from minority.backbones import Backbone
from minority.backbones.licence import training_terms
from tasks.augment.announcement import announce_dataset
from tasks.augment.candidates import Candidates
from tasks.augment.decisions import Decisions
from tasks.augment.kept_images import UnitImages, kept_samples
from tasks.augment.made_by import MadeBy
from tasks.augment.planning import RoundPlan, UnitPlan, quotas
from tasks.augment.plans import run_plans
from tasks.config.runs import AugmentConfig
from tasks.execution.failures import TRIED_AGAIN
from tasks.execution.warning import warn
from tasks.inputs.run_store import open_run_store, published_config
from tasks.inputs.workspace import Workspace, open_workspace

_PACKAGES = ("diffusers", "numpy", "pillow", "pyarrow", "scikit-learn", "torch")
_CHOICE = ("kept", "reason", "near_duplicate_group")


@task(task_run_name="publish {config.name}", **TRIED_AGAIN)
def publish_run(config: AugmentConfig, rounds: int, decisions: Decisions | None = None) -> str:
    """Publish what the units of so many rounds hold. Returns the manifest's URL; the same again changes nothing.

    Args:
        config: The run.
        rounds: How many were drawn.
        decisions: What people said of the candidates; None: nobody looked.
    """
    workspace = open_workspace(config)
    store = open_run_store(workspace.run)
    manifest = publish_rounds(workspace, store, rounds=rounds, decisions=decisions)
    latest = move_latest(workspace.run.store, config.name, workspace.run.run_id)
    url = store.url(MANIFEST_FILE)
    if (terms := training_terms(workspace.backbone.licence)) is not None:
        warn(
            "the licence of %s, %s, %s; read it before you train on these images",
            workspace.backbone.name,
            workspace.backbone.licence,
            terms,
        )
    get_run_logger().info("published %d shards: %s", len(manifest.shards), url)
    announce_dataset(manifest, url=url, latest=latest)
    return url


def publish_rounds(workspace: Workspace, store: Store, *, rounds: int, decisions: Decisions | None = None) -> Manifest:
    """Choose among the candidates of all rounds and write the dataset, a unit at a time."""
    real, config = workspace.real, workspace.config
    wanted = quotas(real, config.plan)
    facts = RunFacts(
        dataset=config.name,
        run_id=workspace.run.run_id,
        recipe=workspace.run.recipe,
        config=published_config(config),
        backbone=_told_of(workspace.backbone),
        versions={package: importlib.metadata.version(package) for package in _PACKAGES},
        class_names=list(real.train.class_names),
        quotas=dict(zip(real.groups, wanted, strict=True)),
        real_digest=real.digest,
        provenance=provenance_of(real.licence, workspace.backbone.name, config=config) + _licence(workspace.backbone),
        real_images=real.account.to_markdown(examples=False),
        review=None if decisions is None else _review(decisions, workspace.run.run_id),
    )
    plans, choice = chosen_candidates(workspace, store, rounds=rounds, decisions=decisions)
    made_by = MadeBy.told(config, recipe=facts.recipe, backbone=facts.backbone)
    return publish(
        store,
        facts=facts,
        samples=kept_samples(store, _streams(plans, choice, with_real=config.publish.real), made_by=made_by),
        metadata=lambda: run_rows(store, plans, choice, decisions=decisions, made_by=made_by),
        samples_per_shard=config.publish.samples_per_shard,
    )


def _review(decisions: Decisions, run_id: str) -> Review:
    return Review(decided_by=decisions.people, decisions=decisions.sha256, units_of=run_id)


def provenance_of(licence: str, backbone: str, *, config: AugmentConfig) -> str:
    """Where the images of a run come from, for its card."""
    how = "which was trained on the training split alone" if config.backbone.prompts is None else "by prompts"
    return f"Real images: {licence} Synthetic images: drawn by the backbone {backbone}, {how}."


def chosen_candidates(
    workspace: Workspace, store: Store, *, rounds: int, decisions: Decisions | None = None
) -> tuple[list[RoundPlan], pa.Table | None]:
    """The plans of a run that has drawn so many rounds, and the choice among its candidates (`Candidates.choose`).

    Raises:
        ValueError: A unit is missing, or was made by other settings.
    """
    plans = run_plans(workspace.run, store, rounds=rounds)
    _require_units(store, plans, recipe=workspace.run.recipe)
    candidates = Candidates(workspace, store)
    for plan in plans:
        if plan.sampler == "minority":
            candidates.add(plan)
    return plans, candidates.choose(decisions)


def _told_of(backbone: Backbone) -> dict[str, str]:
    """What the manifest says of the backbone."""
    licence = {} if backbone.licence is None else {"licence": backbone.licence}
    return {"name": backbone.name, "sha256": backbone.sha256} | licence


def _licence(backbone: Backbone) -> str:
    if backbone.licence is None:
        return ""
    terms = training_terms(backbone.licence)
    return f" Licence of the backbone: {backbone.licence}" + (f", which {terms}; read it." if terms else ".")


def _require_units(store: Store, plans: Sequence[RoundPlan], *, recipe: str) -> None:
    """Refuse units that were evaluated on other images or settings than those of now, before anything is published.

    Raises:
        ValueError: Naming the first.
    """
    for unit in (unit for plan in plans for unit in plan):
        made_by = receipt_of(store, unit.unit).recipe
        if made_by != recipe:
            raise ValueError(
                f"{store.url(f'units/{unit.unit}.json')} is of recipe {made_by}, this run is recipe {recipe}: it was "
                "evaluated on other real images, or made by other settings; remove the unit, or choose another run id."
            )


def run_rows(
    store: Store,
    plans: Sequence[RoundPlan],
    choice: pa.Table | None,
    *,
    decisions: Decisions | None = None,
    made_by: MadeBy | None = None,
) -> Iterator[pa.Table]:
    """The rows of every unit with the final choice: real images, candidates, baseline."""
    for unit, chosen in _with_choice(plans, choice, samplers=("real", "minority", "plain")):
        rows = read_unit_rows(store, unit.unit)
        if chosen is not None:
            for name in _CHOICE:
                rows = replace_column(rows, name, values=chosen[name])
        rows = rows if decisions is None else decisions.add_columns(rows)
        yield rows if made_by is None else made_by.add_columns(rows)


def _with_choice(
    plans: Sequence[RoundPlan], choice: pa.Table | None, *, samplers: Sequence[str]
) -> Iterator[tuple[UnitPlan, pa.Table | None]]:
    """Every unit, sampler by sampler; with each unit of candidates the rows of the choice that are its own."""
    for sampler in samplers:
        done = 0
        for unit in (unit for plan in plans if plan.sampler == sampler for unit in plan):
            chosen = None if choice is None or sampler != "minority" else choice.slice(done, unit.num_samples)
            done += unit.num_samples
            yield unit, chosen


def _streams(plans: Sequence[RoundPlan], choice: pa.Table | None, *, with_real: bool) -> list[list[UnitImages]]:
    """Which images of every unit are published: real ones, then candidates."""
    streams = []
    for sampler in ("real", "minority"):
        parts = _with_choice(plans, choice, samplers=[sampler])
        streams.append(
            [
                UnitImages(unit.unit, [with_real] * unit.num_samples if chosen is None else chosen["kept"].to_pylist())
                for unit, chosen in parts
            ]
        )
    return streams
