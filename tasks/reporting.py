"""The report of a run: written beside the data, shown in Prefect as artifacts."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from datasets.canonical import parse_json
from datasets.manifest import METADATA_FILE
from datasets.store import Store
from datasets.tables import parse_table
from datasets.units import read_unit
from tasks.config import AugmentConfig
from tasks.downstream import read_results
from tasks.failures import TRIED_AGAIN
from tasks.generation import open_run_store, published_config
from tasks.planning import group_quota, quotas
from tasks.report import ReportInputs, render_report
from tasks.workspace import Workspace, open_workspace

REPORT_FILE = "report/report.html"


@dataclass(frozen=True)
class RunSummary:
    """What a run leaves behind.

    Attributes:
        dataset: The dataset's name.
        run_id: The run's name.
        manifest: The manifest's URL.
        report: The report's URL.
        verdict: What the images are worth downstream, in a sentence.
        samplers: A row of figures for each sampler.
        arms: A row of figures for each training set; none where no classifier was trained.
        shortfall: Group -> images that its quota still lacks.
    """

    dataset: str
    run_id: str
    manifest: str
    report: str
    verdict: str
    samplers: list[dict[str, str]]
    arms: list[dict[str, str]]
    shortfall: dict[str, int]


@task(**TRIED_AGAIN)
def write_report(config: AugmentConfig, manifest: str) -> RunSummary:
    """Render the report, store it, and show its parts as artifacts."""
    workspace = open_workspace(config)
    store = open_run_store(workspace)
    metadata = parse_table(store.read(METADATA_FILE), name=METADATA_FILE).to_pandas()
    files = render_report(_inputs(workspace, store, metadata))
    for name, data in files.items():
        store.write(f"report/{name}", data)
    figures = parse_json(files["metrics.json"], name="metrics.json")
    summary = RunSummary(
        dataset=config.name,
        run_id=workspace.run_id,
        manifest=manifest,
        report=store.url(REPORT_FILE),
        verdict=str(figures["verdict"]),
        samplers=[_sampler_row(name, of) for name, of in figures["samplers"].items()],
        arms=[_arm_row(name, of) for name, of in figures["downstream"]["means"].items()]
        if figures["downstream"]
        else [],
        shortfall=_shortfall(workspace, metadata),
    )
    _show(summary, picture=files["samples.png"])
    return summary


def _sampler_row(name: str, figures: dict[str, Any]) -> dict[str, str]:
    shares = {column: _share(figures[column]) for column in ("yield", "rare", "valid", "new")}
    costs = {
        "evaluations a sample": f"{figures['cost_per_sample']:.1f}",
        "evaluations a kept sample": f"{figures['cost_per_kept_sample']['value'] or float('nan'):.0f}",
    }
    return {"sampler": name, "compared": str(figures["candidates"]), **shares, **costs}


def _arm_row(name: str, figures: dict[str, Any]) -> dict[str, str]:
    return {"training set": name} | {metric.replace("_", " "): _share(value) for metric, value in figures.items()}


def _share(figure: dict[str, float]) -> str:
    return f"{figure['value']:.1%}" if figure["value"] is not None else "-"


def _inputs(workspace: Workspace, store: Store, metadata: pd.DataFrame) -> ReportInputs:
    config, real = workspace.config, workspace.real
    quota = group_quota(real, config.plan)
    labels = real.group_labels
    drawn = metadata[metadata["sampler"] != "none"]
    return ReportInputs(
        dataset=config.name,
        run_id=workspace.run_id,
        recipe=workspace.recipe,
        config=published_config(config) | {"downstream": config.downstream.model_dump(mode="json")},
        backbone={"name": workspace.backbone.name, "sha256": workspace.backbone.sha256},
        class_names=list(real.train.class_names),
        metadata=metadata,
        images=_UnitImages(store, metadata),
        quotas={name: quota * labels.count(label) for label, name in enumerate(real.train.class_names)},
        thresholds=workspace.judge.thresholds,
        results=read_results(config, store),
        cost_per_sample={
            str(sampler): float(cost) for sampler, cost in drawn.groupby("sampler")["evaluations"].mean().items()
        },
        reproduce=[f"minority augment {config.name} --set seed={config.seed}"],
        licence=real.licence,
    )


class _UnitImages:
    """Loads images by key from the units that hold them."""

    def __init__(self, store: Store, metadata: pd.DataFrame) -> None:
        self._store = store
        self._unit_of = dict(zip(metadata["key"], metadata["unit"], strict=True))

    def __call__(self, keys: Sequence[str]) -> NDArray[np.uint8]:
        found: dict[str, NDArray[np.uint8]] = {}
        for unit in sorted({self._unit_of[key] for key in keys}):
            images, rows = read_unit(self._store, unit)
            found |= dict(zip(rows["key"].to_pylist(), images, strict=True))
        return np.stack([found[key] for key in keys])


def _shortfall(workspace: Workspace, metadata: pd.DataFrame) -> dict[str, int]:
    groups, wanted = workspace.real.groups, quotas(workspace.real, workspace.config.plan)
    kept = metadata[(metadata["kept"]) & (metadata["source"] == "synthetic")]["group"].value_counts()
    missing = {group: count - int(kept.get(group, 0)) for group, count in zip(groups, wanted, strict=True)}
    return {group: count for group, count in missing.items() if count > 0}


def _show(summary: RunSummary, *, picture: bytes) -> None:
    create_table_artifact(key=f"{summary.dataset}-samplers", table=summary.samplers, description="Samplers compared")
    if summary.arms:
        create_table_artifact(key=f"{summary.dataset}-arms", table=summary.arms, description=summary.verdict)
    encoded = base64.b64encode(picture).decode()
    create_markdown_artifact(
        key=f"{summary.dataset}-samples",
        markdown=f"![plain and minority samples of the same seeds](data:image/png;base64,{encoded})",
        description="The same seeds, plain and guided",
    )
    link = summary.report if "://" in summary.report else f"file://{summary.report}"
    create_link_artifact(key=f"{summary.dataset}-report", link=link, description="The report")
