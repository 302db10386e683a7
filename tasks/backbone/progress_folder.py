"""What a training run tells while it runs: JSON lines and pictures in a folder beside the backbone.

    <out>.progress/losses.jsonl                step, loss, bucket_losses (tenths of the chain, cleanest first)
    <out>.progress/evaluations.jsonl                 step, bits_per_dim, frechet_distance, samples (the picture's name)
    <out>.progress/samples-<step>.png          plain samples, a row a class

A run that is killed and goes on from its last checkpoint leaves the same lines as one that nothing happened to: what it
tells again takes the place of what it told before.
"""

import json
import math
from pathlib import Path
from typing import Any

from datasets.contact_sheet import contact_sheet
from minority.training import Progress
from minority.training.watch import Evaluation

LOSSES, EVALUATIONS = "losses.jsonl", "evaluations.jsonl"
_COLUMNS = 16


class TrainingFolder:
    """The folder of one run, made where it is missing.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def add_losses(self, progress: Progress) -> None:
        """Tell the losses since the last report."""
        buckets = [None if math.isnan(loss) else loss for loss in progress.bucket_losses]
        self._add(LOSSES, {"step": progress.step, "loss": progress.loss, "bucket_losses": buckets})

    def add_evaluation(self, step: int, evaluation: Evaluation, *, class_names: list[str]) -> Path:
        """Tell what was seen at a step. Returns the picture."""
        picture = self.path / f"samples-{step:08d}.png"
        picture.write_bytes(_picture(evaluation, class_names=class_names))
        figures = {"bits_per_dim": evaluation.bits_per_dim, "frechet_distance": evaluation.frechet_distance}
        self._add(EVALUATIONS, {"step": step, **figures, "samples": picture.name})
        return picture

    def lines(self, name: str) -> list[dict[str, Any]]:
        """What was told, in the order of the steps.

        Args:
            name: LOSSES or EVALUATIONS.
        """
        file = self.path / name
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []

    def _add(self, name: str, record: dict[str, Any]) -> None:
        earlier = [line for line in self.lines(name) if line["step"] < record["step"]]
        temporary = self.path / f"{name}.tmp"
        temporary.write_text("".join(json.dumps(line) + "\n" for line in [*earlier, record]), encoding="utf-8")
        temporary.replace(self.path / name)


def _picture(evaluation: Evaluation, *, class_names: list[str]) -> bytes:
    shape = evaluation.samples.shape[1:]
    if evaluation.labels is None:
        rows = [("", list(evaluation.samples[start : start + _COLUMNS])) for start in range(0, 4 * _COLUMNS, _COLUMNS)]
    else:
        rows = [(name, list(evaluation.samples[evaluation.labels == label])) for label, name in enumerate(class_names)]
    return contact_sheet([row for row in rows if row[1]], image_shape=shape, columns=_COLUMNS)
