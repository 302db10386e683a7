"""Trials: the few settings that every arm may try, and the choice among them on the validation split.

An arm without a strength of its own tries learning rates and weight decays; one with a strength tries it together with
the learning rates, at the preferred weight decay. The number is the same for all.

Shapes: N images.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import product
from typing import Any, Literal

import numpy as np
import torch

from minority.downstream.accuracy import group_accuracy
from minority.downstream.arms import Arm
from minority.downstream.data import DownstreamData, Float64, Int64, LabelledImages
from minority.downstream.last_layer import refit_last_layer
from minority.downstream.predictions import Predictions
from minority.downstream.pretrained import answer, fold_of
from minority.downstream.settings import DownstreamSettings
from minority.downstream.training import probabilities_and_features, train

ChosenBy = Literal["worst_group", "balanced"]
#: Seeds of tuning begin here, so that none of them is a seed that is tested.
FIRST_TUNING_SEED = 10_000
_FOLDS = 2
_DEFAULTS = {entry.name: entry.default for entry in fields(Arm)}
#: Settings of an arm that always count; those that came later count where they differ from their default.
_FIRST = {
    "name",
    "source",
    "synthetic_share",
    "synthetic_first",
    "draws",
    "loss",
    "beta",
    "tau",
    "eta",
    "mixup",
    "randaugment",
    "last_layer",
    "ridge",
    "tuned",
    "values",
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One setting of one arm.

    Attributes:
        arm: The recipe, its strength set.
        learning_rate: Peak of the schedule.
        weight_decay: Of AdamW.
    """

    arm: Arm
    learning_rate: float
    weight_decay: float

    @property
    def key(self) -> str:
        """A name for files: the arm's, and 8 hex digits over everything that is set."""
        digest = hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()[:8]
        slug = "".join(character if character.isalnum() else "-" for character in self.arm.name)
        return f"{slug}-{digest}"

    def as_dict(self) -> dict[str, Any]:
        """All settings, ready for JSON; later ones where they are set, so that results keep their names."""
        content = asdict(self)
        content["arm"] = {
            name: value for name, value in content["arm"].items() if name in _FIRST or value != _DEFAULTS[name]
        }
        return content


def trials_for(arm: Arm, settings: DownstreamSettings) -> tuple[Trial, ...]:
    """The trials of an arm, most preferred first.

    Raises:
        ValueError: Where the grid has fewer trials than the budget grants, so that arms would not be tried alike.
    """
    if arm.learner in ("linear_probe", "zero_shot"):  # they have no learning rate
        grid = [(arm.at(value), settings.learning_rates[0], settings.weight_decays[0]) for value in arm.values]
    elif arm.tuned is None:
        grid = [(arm, rate, decay) for decay, rate in product(settings.weight_decays, settings.learning_rates)]
    else:
        decay = settings.weight_decays[0]
        grid = [(arm.at(value), rate, decay) for value, rate in product(arm.values, settings.learning_rates)]
    if len(grid) < settings.trials:
        raise ValueError(
            f"arm {arm.name!r} has {len(grid)} settings to try, but every arm gets {settings.trials} trials; give "
            "more learning rates, weight decays or strengths, or lower DownstreamSettings.trials."
        )
    return tuple(
        Trial(arm=variant, learning_rate=rate, weight_decay=decay) for variant, rate, decay in grid[: settings.trials]
    )


def tuning_seeds(settings: DownstreamSettings) -> range:
    """Seeds with which every trial is run for the choice."""
    return range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + settings.tuning_seeds)


def run_trial(
    trial: Trial,
    seed: int,
    data: DownstreamData,
    *,
    settings: DownstreamSettings,
    part: Literal["validation", "test"],
    device: torch.device | str = "cpu",
) -> Predictions:
    """Train one classifier and let it predict one part; the other part is not predicted.

    An arm that refits its last layer on validation images is validated across folds: each half is predicted by a layer
    fitted on the other. A group without images in what a layer is fitted on lends its training images.

    Args:
        trial: Arm and settings.
        seed: Decides all that is random. Arms are compared seed by seed.
        data: Training, validation and test images.
        settings: The budget.
        part: What to predict.
        device: Where to train.
    """
    if trial.arm.learner in ("linear_probe", "zero_shot"):
        return answer(trial.arm, data, part=part)
    network = train(
        trial.arm,
        data,
        learning_rate=trial.learning_rate,
        weight_decay=trial.weight_decay,
        settings=settings,
        seed=seed,
        device=device,
    )
    images: LabelledImages = getattr(data, part)
    probabilities, features = probabilities_and_features(network, images)
    if not trial.arm.last_layer:
        return Predictions.of(probabilities.cpu().numpy())
    if part == "test":
        fitted = _refitted(trial, network, data, np.arange(len(data.validation)))
        return Predictions.of(fitted(features))
    averaged = np.zeros((len(images), len(data.class_names)))
    fold = fold_of(data.validation.groups)
    for i in range(_FOLDS):
        held_out = np.flatnonzero(fold == i)
        fitted = _refitted(trial, network, data, np.flatnonzero(fold != i))
        averaged[held_out] = fitted(features[torch.as_tensor(held_out, device=features.device)])
    return Predictions.of(averaged)


def choose_trial(
    results: Mapping[Trial, Sequence[Predictions]],
    validation: LabelledImages,
    *,
    num_groups: int,
    by: ChosenBy = "worst_group",
) -> Trial:
    """The trial with the best mean worst-group accuracy on the validation split, or the best mean over groups.

    Ties, which few validation images make common, go to the other one of the two, then to the trial named first.

    Args:
        results: Predictions of the validation images, one a tuning seed.
        validation: Those images.
        num_groups: G; groups without validation images count neither way.
        by: Which of the two decides.

    Raises:
        ValueError: Where there is nothing to choose from.
    """
    if not results or len(validation) == 0:
        raise ValueError("settings are chosen on validation images, got none; set a validation share above 0.")
    return max(results, key=lambda trial: merit(results[trial], validation, num_groups=num_groups, by=by))


def merit(
    predictions: Sequence[Predictions], validation: LabelledImages, *, num_groups: int, by: ChosenBy = "worst_group"
) -> tuple[float, float]:
    """What a choice goes by: worst-group accuracy and the mean over groups, means over seeds, the decisive one first.

    Rounded, so that the last bits of a sum decide nothing. Arguments as of `choose_trial`.
    """
    accuracies = [group_accuracy(one.predicted, validation, num_groups=num_groups) for one in predictions]
    worst = round(float(np.mean([np.nanmin(a) for a in accuracies])), 9)
    mean = round(float(np.mean([np.nanmean(a) for a in accuracies])), 9)
    return (worst, mean) if by == "worst_group" else (mean, worst)


def _refitted(trial: Trial, network: Any, data: DownstreamData, chosen: Int64) -> Any:
    """A last layer fitted on some validation images: features -> probabilities."""
    fitting = data.validation.subset(chosen)
    lent = data.train.subset(np.flatnonzero(~np.isin(data.train.groups, fitting.groups)))
    features = torch.cat([probabilities_and_features(network, part)[1] for part in (fitting, lent)])
    layer = refit_last_layer(
        features,
        np.concatenate([fitting.labels, lent.labels]),
        np.concatenate([fitting.groups, lent.groups]),
        num_classes=len(data.class_names),
        ridge=trial.arm.ridge,
    )

    @torch.no_grad()
    def predict(features: torch.Tensor) -> Float64:
        probabilities: Float64 = layer(features).double().softmax(dim=1).cpu().numpy()
        return probabilities

    return predict
