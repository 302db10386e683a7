"""The trainings of a comparison: which there are, what their results are called, and what follows from them.

First every trial of every arm is trained with the tuning seeds and predicts the validation images. Then the trial that
was chosen for an arm is trained with the seeds that count and predicts the test images. Whoever runs the trainings
keeps the predictions under the names given here; equal names mean equal results.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Literal

from minority.downstream.arms import Arm
from minority.downstream.data import DownstreamData, LabelledImages
from minority.downstream.predictions import Predictions
from minority.downstream.settings import DownstreamSettings
from minority.downstream.trials import Trial, choose_trial, trials_for, tuning_seeds
from minority.runtime.image_arrays import content_key

#: Raise it when a change of the code changes what a training predicts, so that no comparison mixes old and new ones.
RESULTS_VERSION = 1
#: They change how many trainings there are, or their speed, but no training.
_INDECISIVE = ("record_steps", "tuning_seeds", "trials", "chosen_by")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training.

    Attributes:
        trial: The arm with one choice of its settings.
        seed: Of the training.
        part: "validation" or "test": the images that it predicts.
    """

    trial: Trial
    seed: int
    part: Literal["validation", "test"]


#: The predictions of a job, or None where it is not done.
Read = Callable[[Job], Predictions | None]


@dataclass(frozen=True, eq=False, kw_only=True)
class Outcome:
    """What came of a comparison, as far as it is done.

    Attributes:
        chosen: Arm -> the trial that validation chose.
        validated: Arm -> that trial's predictions of the validation images, by tuning seed.
        tested: Arm -> its predictions of the test images, by seed.
        unfinished: Arms that lack results; they are in none of the above.
    """

    chosen: dict[str, Trial] = field(default_factory=dict)
    validated: dict[str, dict[int, Predictions]] = field(default_factory=dict)
    tested: dict[str, dict[int, Predictions]] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)


class Comparison:
    """The trainings that compare some arms on one data set.

    Args:
        data: The images.
        settings: The budget of every arm.
        arms: The arms, each name once.
        seeds: Trainings of every arm's chosen trial, at least 1; seed i is the i-th.

    Raises:
        ValueError: There are no validation images to choose on, two arms share a name, or an arm cannot fill its
            trials.
    """

    def __init__(self, data: DownstreamData, settings: DownstreamSettings, *, arms: Sequence[Arm], seeds: int) -> None:
        if len(data.validation) == 0:
            raise ValueError("arms are tuned on validation images, got none; set a validation share above 0.")
        if seeds < 1 or not arms:
            raise ValueError(f"a comparison needs at least one arm and one seed, got {len(arms)} and {seeds}.")
        names = [arm.name for arm in arms]
        if len(set(names)) < len(names):
            raise ValueError(f"arms must have different names, got {', '.join(names)}.")
        self.data, self.settings, self.arms, self.seeds = data, settings, tuple(arms), seeds
        self._trials = {arm.name: trials_for(arm, settings) for arm in arms}

    def name(self, job: Job) -> str:
        """Name of a job's result, fit for a file: the trial, 8 hex digits over budget and images, part and seed."""
        arm = job.trial.arm
        source = "" if arm.source is None else self._sources[arm.source]
        if arm.needs_attributes:
            source += _attributes(self.data.train)
            source += "" if arm.source is None else _attributes(self.data.synthetic[arm.source])
        if arm.uses_backbone:
            source += self._reading
        return f"{job.trial.key}-{_digest(self._budget_and_images, source)}-{job.part}-{job.seed}"

    def tuning(self, arm: Arm) -> list[Job]:
        """The trainings among which an arm's trial is chosen."""
        return [
            Job(trial=trial, seed=seed, part="validation")
            for trial in self._trials[arm.name]
            for seed in tuning_seeds(self.settings)
        ]

    def tests(self, arm: Arm, read: Read) -> list[Job] | None:
        """The trainings of an arm's chosen trial, or None while its tuning is not done."""
        validated = self._validated(arm, read)
        return None if validated is None else self._tests_of(self._choose(validated))

    def outcome(self, read: Read) -> Outcome:
        """What is done so far."""
        outcome = Outcome()
        for arm in self.arms:
            validated = self._validated(arm, read)
            if validated is None:
                outcome.unfinished.append(arm.name)
                continue
            trial = self._choose(validated)
            tested = {job.seed: read(job) for job in self._tests_of(trial)}
            if any(predictions is None for predictions in tested.values()):
                outcome.unfinished.append(arm.name)
                continue
            outcome.chosen[arm.name] = trial
            outcome.validated[arm.name] = validated[trial]
            outcome.tested[arm.name] = {seed: validated for seed, validated in tested.items() if validated is not None}
        return outcome

    def _validated(self, arm: Arm, read: Read) -> dict[Trial, dict[int, Predictions]] | None:
        by_trial: dict[Trial, dict[int, Predictions]] = {}
        for job in self.tuning(arm):
            predictions = read(job)
            if predictions is None:
                return None
            by_trial.setdefault(job.trial, {})[job.seed] = predictions
        return by_trial

    def _choose(self, results: Mapping[Trial, Mapping[int, Predictions]]) -> Trial:
        by_trial = {trial: list(by_seed.values()) for trial, by_seed in results.items()}
        return choose_trial(
            by_trial, self.data.validation, num_groups=len(self.data.group_names), by=self.settings.chosen_by
        )

    def _tests_of(self, trial: Trial) -> list[Job]:
        return [Job(trial=trial, seed=seed, part="test") for seed in range(self.seeds)]

    @cached_property
    def _budget_and_images(self) -> str:
        budget = {name: value for name, value in asdict(self.settings).items() if name not in _INDECISIVE}
        parts = (self.data.train, self.data.validation, self.data.test)
        return _digest(str(RESULTS_VERSION), json.dumps(budget, sort_keys=True), *(_content(part) for part in parts))

    @cached_property
    def _reading(self) -> str:
        return "" if self.data.reading is None else self.data.reading.digest()

    @cached_property
    def _sources(self) -> dict[str, str]:
        return {name: _content(images) for name, images in self.data.synthetic.items()}


def _content(part: LabelledImages) -> str:
    return _digest(content_key(part.images), part.labels.tobytes(), part.groups.tobytes(), repr(part.images.shape))


def _attributes(part: LabelledImages) -> str:
    return "" if part.attributes is None else _digest(part.attributes.tobytes())


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else part.encode())
    return digest.hexdigest()[:8]
