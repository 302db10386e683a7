"""A comparison of training recipes in MLflow: one run a recipe, with its accuracies, of groups too."""

import logging
from collections.abc import Mapping
from typing import Any

from tasks.errors import InputError
from tasks.execution.tracking import Tracking
from tasks.report.verdict import name_of_arm

EXPERIMENT = "minority-downstream"
_ENDS = {"value": "", "low": ".low", "high": ".high"}


def track_comparison(figures: Mapping[str, Any], *, manifest: str, folder: str) -> None:
    """Tell the figures of every recipe; nothing where MLFLOW_TRACKING_URI is not set, or no classifier was trained.

    Where MLflow went away while classifiers were trained, the log says so, and their report stays.

    Args:
        figures: All figures of the report, as its metrics.json has them.
        manifest: URL of the run that was compared on.
        folder: Where the comparison lies in the run; another one is told to other MLflow runs.
    """
    try:
        _track(figures, manifest=manifest, folder=folder)
    except InputError as error:
        logging.getLogger(__name__).warning("%s The figures are in the report.", error)


def _track(figures: Mapping[str, Any], *, manifest: str, folder: str) -> None:
    found = figures.get("downstream") or {"arms": {}}
    for name, arm in found["arms"].items():
        tracking = Tracking(
            EXPERIMENT,
            f"{figures['dataset']}: {name_of_arm(name)}",
            key=f"{figures['recipe']} {figures['run_id']} {folder} {name}",
            params={"recipe": name, "setting": arm["setting"], "synthetic images": arm["num_synthetic"]}
            | found["budget"],
            tags={
                "minority.dataset": figures["dataset"],
                "minority.run_id": figures["run_id"],
                "minority.recipe": figures["recipe"],
                "minority.manifest": manifest,
                "minority.verdict": str(figures["verdict"]),
            },
        )
        by_name = dict(arm["means"]) | {f"accuracy of {group}": figure for group, figure in arm["groups"].items()}
        tracking.log(
            {f"{metric}{end}": figure[part] for metric, figure in by_name.items() for part, end in _ENDS.items()}
            | {f"multiply-adds.{what}": arm["cost"][what] for what in ("training", "drawing", "image")}
        )
        tracking.finish()
