"""Training on several GPUs, or in several processes without one, joined by accelerate.

The processes run tasks/backbone/train_process.py. They end when this one does, however it ends: each waits at a pipe
that it holds. What they tell lies in the run's folder, where it is read.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tasks.backbone.progress_folder import EVALUATIONS, LOSSES, TrainingFolder
from tasks.config.runs import TrainBackboneConfig
from tasks.errors import InputError, RunIncompleteError

_SECONDS_BETWEEN_READINGS = 1.0
_LAST_LINES = 5


def train_in_processes(
    config: TrainBackboneConfig, *, folder: Path, on_step: Callable[[int], None], on_evaluation: Callable[[Path], None]
) -> None:
    """Train in `config.processes` processes and wait for them.

    Args:
        config: What to train.
        folder: The run's folder (tasks/backbone/progress_folder.py); what the processes say goes into processes.log
            there.
        on_step: Called with the steps done.
        on_evaluation: Called with the picture of every evaluation.

    Raises:
        InputError: accelerate is not installed.
        RunIncompleteError: A process failed; gives its last lines.
    """
    if importlib.util.find_spec("accelerate") is None:
        raise InputError("processes above 1 need the package accelerate; pip install 'minority-augment[gpus]'.")
    training_log = TrainingFolder(folder)
    log = folder / "processes.log"
    with tempfile.TemporaryDirectory() as temporary, log.open("wb") as output:
        order = Path(temporary, "config.json")
        order.write_text(config.model_dump_json(), encoding="utf-8")
        process = subprocess.Popen(
            _command(config, order),
            cwd=Path(__file__).resolve().parents[2],
            env=os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
        )
        with process:
            shown = {line["step"] for line in training_log.lines(EVALUATIONS)}
            while process.poll() is None:
                time.sleep(_SECONDS_BETWEEN_READINGS)
                _tell(training_log, shown, on_step=on_step, on_evaluation=on_evaluation)
    _tell(training_log, shown, on_step=on_step, on_evaluation=on_evaluation)
    if process.returncode != 0:
        last = " / ".join(log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-_LAST_LINES:])
        raise RunIncompleteError(
            f"training in {config.processes} processes ended with exit code {process.returncode}: {last}; all they "
            f"said is in {log}. Run the same command again to go on from the last checkpoint."
        )


def _command(config: TrainBackboneConfig, order: Path) -> list[str]:
    # What `accelerate launch` runs for several GPUs; for several processes without one it asks for MPI, this does not.
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [
        *launcher,
        "--nproc-per-node",
        str(config.processes),
        "--module",
        "tasks.backbone.train_process",
        str(order),
    ]


def _tell(
    training_log: TrainingFolder,
    shown: set[int],
    *,
    on_step: Callable[[int], None],
    on_evaluation: Callable[[Path], None],
) -> None:
    losses = training_log.lines(LOSSES)
    if losses:
        on_step(losses[-1]["step"])
    for line in training_log.lines(EVALUATIONS):
        if line["step"] not in shown:
            shown.add(line["step"])
            on_evaluation(training_log.path / line["samples"])
