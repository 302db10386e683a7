"""A backbone's training in MLflow: what its progress folder tells, while it trains, and the figures of its card."""

import time
from collections.abc import Mapping
from numbers import Real
from typing import Any

from tasks.backbone.progress_folder import EVALUATIONS, LOSSES, TrainingFolder
from tasks.config.runs import TrainBackboneConfig
from tasks.execution.tracking import Tracking, flattened

EXPERIMENT = "minority-backbones"
_SECONDS_BETWEEN = 5.0


class TrackedTraining:
    """Tells MLflow what the lines of a progress folder say, those of another process, too.

    Args:
        config: The training.
        folder: Where it tells of itself.

    Raises:
        InputError: MLFLOW_TRACKING_URI is set, and MLflow cannot be used.
    """

    def __init__(self, config: TrainBackboneConfig, folder: TrainingFolder) -> None:
        settings = config.model_dump(mode="json")
        self._folder, self._told_at = folder, 0.0
        self._tracking = Tracking(
            EXPERIMENT,
            config.name,
            key=config.model_dump_json(exclude={"device", "processes"}),
            params=flattened(settings),
            tags={"minority.backbone": config.name, "minority.folder": config.out},
        )
        self._last = {LOSSES: self._tracking.last_step("loss"), EVALUATIONS: self._tracking.last_step("bits_per_dim")}

    def tell(self, *, at_once: bool = False) -> None:
        """Tell what is new, at most every few seconds unless at once."""
        if not at_once and time.monotonic() - self._told_at < _SECONDS_BETWEEN:
            return
        self._told_at = time.monotonic()
        for file in (LOSSES, EVALUATIONS):
            for line in self._folder.lines(file):
                if line["step"] > self._last[file]:
                    self._tracking.log(_figures(line), step=line["step"])
                    self._last[file] = line["step"]

    def finish(self, quality: Mapping[str, Any] | None) -> None:
        """Tell what is left and the figures of the model card, and end the run."""
        self.tell(at_once=True)
        self._tracking.log({f"quality.{name}": value for name, value in _figures(flattened(quality or {})).items()})
        self._tracking.finish()


def _figures(line: Mapping[str, Any]) -> dict[str, float | None]:
    """The numbers of a line; those in lists by their places."""
    found: dict[str, float | None] = {}
    for name, value in line.items():
        values = (
            {f"{name}.{place}": each for place, each in enumerate(value)} if isinstance(value, list) else {name: value}
        )
        numbers = {key: each for key, each in values.items() if isinstance(each, Real) and not isinstance(each, bool)}
        found |= {key: float(each) for key, each in numbers.items() if key != "step"}
    return found
