"""One training draw from its split to its result; every training is a checkpoint of its own."""

from pathlib import Path

import numpy as np

from benchmarks.draws.construction import Construction, Say
from benchmarks.draws.results import DrawResult
from benchmarks.draws.trainings import train_all
from benchmarks.draws.verdict_over_draws import DrawAnswers
from minority.downstream.cost import cost_of
from minority.downstream.data import DownstreamData
from minority.downstream.jobs import Comparison, Outcome


def run_draw(construction: Construction, draw: int, folder: Path, *, device: str, say: Say) -> DrawResult:
    """Make the draw's images, tune and test every arm, and keep the result.

    Args:
        construction: Which.
        draw: Its number.
        folder: Receives everything; what is there already is read.
        device: Where classifiers train.
        say: Told what is going on.
    """
    say(f"{construction.name}, draw {draw}")
    data = construction.make(draw, folder, say=say)
    comparison = Comparison(data, construction.settings, arms=construction.arms(), seeds=construction.seeds)
    outcome = train_all(comparison, folder / "predictions", device=device, say=say)
    result = result_of(draw, data, outcome, construction)
    result.write(folder / "result.npz")
    return result


def result_of(draw: int, data: DownstreamData, outcome: Outcome, construction: Construction) -> DrawResult:
    """Sum up a draw whose trainings are done."""
    answers = {
        arm: DrawAnswers(
            right=np.stack([found.predicted == data.test.labels for found in by_seed.values()]), parts=data.test.groups
        )
        for arm, by_seed in outcome.tested.items()
    }
    validated = {
        arm: float(np.mean([_balanced(found.predicted, data) for found in by_seed.values()]))
        for arm, by_seed in outcome.validated.items()
    }
    costs = {arm: cost_of(trial.arm, data, construction.settings) for arm, trial in outcome.chosen.items()}
    return DrawResult(
        draw=draw,
        sizes=tuple(np.bincount(data.train.labels, minlength=len(data.class_names)).tolist()),
        parts=data.test.groups,
        answers=answers,
        validated=validated,
        costs=costs,
    )


def _balanced(predicted: np.ndarray, data: DownstreamData) -> float:
    right, groups = predicted == data.validation.labels, data.validation.groups
    return float(np.mean([right[groups == group].mean() for group in np.unique(groups)]))
