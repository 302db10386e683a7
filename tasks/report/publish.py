"""The report of a run: written beside the data, shown in Prefect as artifacts."""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
import pyarrow as pa
from prefect import task

from datasets.storage.canonical import parse_json
from datasets.storage.checked import checked_json, parse_checked_json
from minority.downstream.cost import in_words
from minority.downstream.metrics import results_table
from tasks.augment.group_gate import GATE_COLUMNS, GroupGate, gates_of
from tasks.augment.planning import group_quota, quotas
from tasks.config.presets import command_of
from tasks.config.runs import AugmentConfig, DownstreamConfig
from tasks.downstream.trainings import has_arms, open_arms, read_outcome, results_folder, skipped_arms
from tasks.errors import InputError
from tasks.execution.failures import TRIED_AGAIN
from tasks.inputs.planned_groups import sparse_groups
from tasks.inputs.published_run import PublishedRun, open_published
from tasks.inputs.run_store import published_config
from tasks.inputs.stored_headroom import read_headroom
from tasks.inputs.workspace import open_workspace
from tasks.report import ReportInputs, render_report
from tasks.report.artifacts import show_run
from tasks.report.card_fairness import FAIRNESS_FILE, fairness_card
from tasks.report.gallery import GALLERY_FILE, GalleryInputs, write_gallery
from tasks.report.tracked_comparison import track_comparison
from tasks.report.verdict import ArmResults, name_of_arm

REPORT_FILE, FIGURES_FILE, RESULTS_FILE = "report.html", "metrics.json", "results.parquet"
_FOLDER = "report"
#: Settings of a run that are places of a machine.
_OF_THIS_MACHINE = ("store", "device", "workers", "units_a_task")


@dataclass(frozen=True)
class RunSummary:
    """What a run leaves behind.

    Attributes:
        dataset: The dataset's name.
        run_id: The run's name.
        manifest: The manifest's URL.
        report: The report's URL.
        recommendation: What to do, with its evidence; None where no recipes were compared.
        gallery: URL of the page with all candidates; None where the report is one of a comparison.
        verdict: What the images are worth downstream, in a sentence.
        samplers: A row of figures for each sampler.
        arms: A row of figures for each training recipe; none where no classifier was trained.
        shortfall: Group -> images that its quota still lacks.
        kept: Synthetic images that were kept.
        wanted: Synthetic images that the quotas asked for.
        skipped: Training recipes that were asked for and skipped -> why.
        figures: All figures of the report, as its metrics.json has them.
    """

    dataset: str
    run_id: str
    manifest: str
    report: str
    recommendation: str | None
    verdict: str
    samplers: list[dict[str, str]]
    arms: list[dict[str, str]]
    shortfall: dict[str, int]
    gallery: str | None = None
    kept: int = 0
    wanted: int = 0
    skipped: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether all that was asked for came out."""
        return not self.shortfall and not self.skipped


@task(task_run_name="report on {config.name}", **TRIED_AGAIN)
def write_report(config: AugmentConfig, manifest: str) -> RunSummary:
    """Render the report of a published run, with its comparison of arms where there was one, and show its parts."""
    run, comparison = open_published(manifest), config.comparison(manifest)
    results = save_results(comparison) if comparison is not None and has_arms(comparison) else None
    workspace = open_workspace(config)
    shown = published_config(config)
    if config.downstream is not None:
        shown |= {"downstream": config.downstream.model_dump(mode="json")}
    inputs = _inputs(run, results, thresholds=workspace.thresholds, config=shown, reproduce=_reproduce(config))
    inputs = replace(inputs, neighbours=workspace.candidate_filter.reference.index.accuracy)
    skipped = {} if comparison is None else skipped_arms(comparison)
    summary, picture = _publish(run, inputs, folder=_FOLDER, gallery=_write_gallery(run), skipped=skipped)
    show_run(summary, picture, store=config.store)
    return summary


@task(task_run_name="report on {config.name}", **TRIED_AGAIN)
def report_comparison(config: DownstreamConfig) -> RunSummary:
    """Render the report of a comparison on a published run, beside its results, and show its parts."""
    assert config.manifest is not None, "resolved"
    run = open_published(config.manifest)
    shown = published_config(run.config) | {"downstream": config.downstream.model_dump(mode="json")}
    inputs = _inputs(
        run,
        save_results(config),
        thresholds=_thresholds(run),
        config=shown,
        reproduce=[*_reproduce(run.config, elsewhere=["downstream"]), *_reproduce(config)],
    )
    summary, picture = _publish(run, inputs, folder=results_folder(config), skipped=skipped_arms(config))
    show_run(summary, picture, store=config.store)
    return summary


def report_version(manifest: str, *, source: PublishedRun) -> RunSummary:
    """Render the report of a version of a run, with its gallery.

    Args:
        manifest: The version's.
        source: The run that it is a version of, whose report tells where the filters cut.
    """
    run = open_published(manifest)
    review = f"minority review {run.manifest.dataset} --decisions DECISIONS.json"
    inputs = _inputs(
        run,
        None,
        thresholds=_thresholds(source),
        config=published_config(run.config),
        reproduce=[*_reproduce(run.config, elsewhere=["downstream"]), review],
    )
    summary, _ = _publish(run, inputs, folder=_FOLDER, gallery=_write_gallery(run))
    return summary


def _write_gallery(run: PublishedRun) -> str:
    inputs = GalleryInputs(
        dataset=run.manifest.dataset,
        run_id=run.manifest.run_id,
        metadata=run.metadata,
        read_unit=run.unit_images,
        report=REPORT_FILE,
    )
    return write_gallery(inputs, run.store, folder=_FOLDER)


def save_results(config: DownstreamConfig) -> ArmResults:
    """Measure what every tested classifier predicted, and keep the figures as results.parquet."""
    opened, outcome = open_arms(config), read_outcome(config)
    runs = {
        (arm, seed): predictions for arm, by_seed in outcome.tested.items() for seed, predictions in by_seed.items()
    }
    figures = results_table(runs, opened.comparison.data)
    content = io.BytesIO()
    figures.to_parquet(content)
    opened.run.store.write(f"{results_folder(config)}/{RESULTS_FILE}", content.getvalue())
    return ArmResults(
        outcome=outcome, data=opened.comparison.data, settings=opened.comparison.settings, figures=figures
    )


def _thresholds(run: PublishedRun) -> Mapping[str, float]:
    """Where the run's filters cut, as its own report tells; none where it has none yet."""
    path = f"{_FOLDER}/{FIGURES_FILE}"
    if not run.store.exists(path):
        return {}
    content: dict[str, float] = parse_checked_json(run.store.read(path), name=run.store.url(path))["thresholds"]
    return content


def _reproduce(config: AugmentConfig | DownstreamConfig, *, elsewhere: Sequence[str] = ()) -> list[str]:
    """The command that makes it again; settings that stand elsewhere are left out."""
    try:
        return [command_of(config, exclude=(*_OF_THIS_MACHINE, "manifest", "run_id", *elsewhere))]
    except InputError as error:
        return [f"# {error} The resolved config above is the whole order."]


def _inputs(
    run: PublishedRun,
    results: ArmResults | None,
    *,
    thresholds: Mapping[str, float],
    config: Mapping[str, object],
    reproduce: Sequence[str],
) -> ReportInputs:
    manifest, real, metadata = run.manifest, run.real, run.metadata
    quota, labels = group_quota(real, run.config.plan), real.group_labels
    drawn = metadata[metadata["sampler"] != "real"]
    return ReportInputs(
        dataset=manifest.dataset,
        run_id=manifest.run_id,
        recipe=manifest.recipe,
        config=config,
        backbone=manifest.backbone,
        class_names=manifest.class_names,
        metadata=metadata,
        images=run.images,
        quotas={name: quota * labels.count(label) for label, name in enumerate(manifest.class_names)},
        thresholds=thresholds,
        results=results,
        cost_per_sample={
            str(sampler): float(cost) for sampler, cost in drawn.groupby("sampler")["evaluations"].mean().items()
        },
        reproduce=reproduce,
        licence=real.licence,
        account=real.account.to_text(examples=False),
        gates=_gates(run),
        headroom=read_headroom(run.dataset_store, digest=real.digest),
    )


def _gates(run: PublishedRun) -> list[GroupGate]:
    """What became of the groups with few or no real images; none where no classifier told what samples show."""
    if not set(GATE_COLUMNS) <= set(run.metadata.columns):
        return []
    drawn = run.metadata.loc[run.metadata["sampler"] == "minority", ["group", "round", *GATE_COLUMNS]]
    return gates_of(
        pa.Table.from_pandas(drawn, preserve_index=False),
        groups=run.real.groups,
        sparse=sparse_groups(run.real, neighbours=run.config.selection.neighbours),
        real=Counter(run.real.train.groups),
        floor=run.config.plan.gate,
    )


def _publish(
    run: PublishedRun,
    inputs: ReportInputs,
    *,
    folder: str,
    gallery: str | None = None,
    skipped: Mapping[str, str] | None = None,
) -> tuple[RunSummary, bytes]:
    """Write the report's files. Returns what they say in short, and the picture of samples."""
    inputs = replace(inputs, gallery="" if gallery is None else GALLERY_FILE)
    files = render_report(inputs)
    figures = parse_json(files[FIGURES_FILE], name=FIGURES_FILE)
    files[FIGURES_FILE] = checked_json(figures)  # its thresholds are read back
    fairness = fairness_card(figures, command=inputs.reproduce[-1], figures_file=f"{folder}/{FIGURES_FILE}")
    if fairness is not None:
        run.store.write(f"{folder}/{FAIRNESS_FILE}", fairness.encode())
    for name, data in files.items():
        run.store.write(f"{folder}/{name}", data)
    track_comparison(figures, manifest=run.url, folder=folder)
    order = list(inputs.results.outcome.tested) if inputs.results is not None else []
    summary = RunSummary(
        dataset=run.manifest.dataset,
        run_id=run.manifest.run_id,
        manifest=run.url,
        report=run.store.url(f"{folder}/{REPORT_FILE}"),
        recommendation=figures["recommendation"],
        verdict=str(figures["verdict"]),
        samplers=[_sampler_row(name, of) for name, of in figures["samplers"].items()],
        arms=[
            _arm_row(name, figures["downstream"]["arms"][name], order=figures["downstream"]["metrics"])
            for name in order
        ],
        shortfall=_shortfall(run),
        gallery=gallery,
        kept=int((run.metadata["kept"] & (run.metadata["source"] == "synthetic")).sum()),
        wanted=sum(quotas(run.real, run.config.plan)),
        skipped=skipped or {},
        figures=figures,
    )
    return summary, files["samples.png"]


def _sampler_row(name: str, figures: dict[str, Any]) -> dict[str, str]:
    shares = {column: _share(figures[column]) for column in ("yield", "rare", "valid", "new")}
    per_kept = figures["cost_per_kept_sample"]["value"]
    costs = {
        "evaluations a sample": f"{figures['cost_per_sample']:.1f}",
        "evaluations a kept sample": "-" if per_kept is None else f"{per_kept:.0f}",
    }
    return {"sampler": name, "compared": str(figures["candidates"]), **shares, **costs}


def _arm_row(name: str, results: dict[str, Any], *, order: Sequence[str]) -> dict[str, str]:
    """Accuracies, the decisive one first, and what the recipe costs in multiply-adds."""
    cost = {what: float("nan") if value is None else value for what, value in results["cost"].items()}
    return (
        {"recipe": name_of_arm(name)}
        | {metric.replace("_", " "): _share(results["means"][metric]) for metric in order}
        | {"training + drawing": in_words(cost["training"] + cost["drawing"]), "an image": in_words(cost["image"])}
    )


def _share(figure: dict[str, float]) -> str:
    return f"{figure['value']:.1%}" if figure["value"] is not None else "-"


def _shortfall(run: PublishedRun) -> dict[str, int]:
    groups, wanted, rows = run.real.groups, quotas(run.real, run.config.plan), run.metadata
    kept: pd.Series[int] = rows[rows["kept"] & (rows["source"] == "synthetic")]["group"].value_counts()
    missing = {group: count - int(kept.get(group, 0)) for group, count in zip(groups, wanted, strict=True)}
    return {group: count for group, count in missing.items() if count > 0}
