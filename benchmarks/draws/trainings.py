"""The trainings of a draw, one file each, so that a run that is cut short goes on where it was."""

import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.draws.construction import Say
from minority.downstream.jobs import Comparison, Job, Outcome
from minority.downstream.predictions import Predictions
from minority.downstream.trials import run_trial


def train_all(comparison: Comparison, folder: Path, *, device: str, say: Say) -> Outcome:
    """Tune, choose and test, arm by arm; what is done already is read.

    Args:
        comparison: The arms, their budget and the images.
        folder: Receives the predictions, under the names that the comparison gives them.
        device: Where to train.
        say: Told how far it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    start, done = time.monotonic(), 0

    def path(job: Job) -> Path:
        return folder / f"{comparison.name(job)}.npz"

    def read(job: Job) -> Predictions | None:
        return Predictions.load(path(job)) if path(job).is_file() else None

    def train(jobs: Sequence[Job]) -> None:
        nonlocal done
        for job in jobs:
            if path(job).is_file():
                continue
            predictions = run_trial(
                job.trial, job.seed, comparison.data, settings=comparison.settings, part=job.part, device=device
            )
            part = path(job).with_name(path(job).name + ".part")
            with part.open("wb") as file:
                predictions.save(file)
            part.replace(path(job))
            done += 1
            if done % 50 == 0:
                say(f"{done} trainings, {(time.monotonic() - start) / done:.2f} s each")

    for arm in comparison.arms:
        train(comparison.tuning(arm))
        tests = comparison.tests(arm, read)
        assert tests is not None, "tuned"
        train(tests)
    return comparison.outcome(read)
