"""Downstream classifiers: every arm tuned on validation images, then tested once; one result file a training."""

import hashlib
import io
import json
import logging
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from prefect import task

from datasets.storage.checked import DamagedError, read_checked, write_checked
from datasets.storage.store import Store
from minority.downstream.arms import Arm, arms_for, backbone_arms
from minority.downstream.combining import PARTS, arm_named
from minority.downstream.data import DownstreamData
from minority.downstream.jobs import Comparison, Job, Outcome
from minority.downstream.predictions import Predictions
from minority.downstream.settings import DownstreamSettings
from minority.downstream.trials import run_trial, trials_for
from minority.evaluation.backbone_reading import ReadingSettings
from tasks.config.paths import project_path
from tasks.config.preset_files import options
from tasks.config.runs import DownstreamConfig
from tasks.config.sections import ArmsConfig
from tasks.downstream.backbone_outputs import Pretrained, pretrained_kind, with_reading
from tasks.downstream.data import PLAIN, images_of_run, sources_of
from tasks.errors import InputError
from tasks.execution.failures import TRIED_AGAIN
from tasks.execution.tracking import require_tracking
from tasks.inputs.published_run import PublishedRun, latest_manifest, open_published
from tasks.inputs.real_data import RealData
from tasks.inputs.workspace import prepare_device

_opening = threading.RLock()


class NoArmError(InputError):
    """All arms that were asked for are skipped.

    Attributes:
        skipped: Arm -> why.
    """

    def __init__(self, skipped: Mapping[str, str]) -> None:
        self.skipped = dict(skipped)
        names, reason = ", ".join(skipped), next(iter(skipped.values()))
        super().__init__(
            f"downstream: no training recipe is left to compare: {names}: {reason}; add recipes without synthetic "
            "images (downstream.arms), or augment again so that some are kept."
        )


@dataclass(frozen=True, eq=False)
class ArmsOnRun:
    """The comparison of arms on a published run.

    Attributes:
        run: The run.
        comparison: Its trainings.
        device: Where they run.
        skipped: Arms that were asked for and have no synthetic image -> why they are left out.
    """

    run: PublishedRun
    comparison: Comparison
    device: str
    skipped: Mapping[str, str] = field(default_factory=dict)

    def path(self, job: Job) -> str:
        """Where a training's predictions lie in the run's store."""
        return f"downstream/predictions/{self.comparison.name(job)}.npz"

    def read(self, job: Job) -> Predictions | None:
        """A training's predictions, or None where it is not done.

        Raises:
            DamagedError: They are damaged, or of an earlier version; `run_training` makes them again.
        """
        store, path = self.run.store, self.path(job)
        try:
            return Predictions.load(io.BytesIO(read_checked(store, path)))
        except FileNotFoundError:
            return None

    def is_done(self, job: Job) -> bool:
        """Whether a training's predictions are there and sound; damaged ones are told in the log."""
        try:
            return self.read(job) is not None
        except DamagedError as error:
            logging.getLogger(__name__).warning("%s The training is done again.", error)
            return False


def check_arms(config: ArmsConfig, real: RealData, *, sources: Sequence[str], pretrained: Pretrained = "no") -> None:
    """Find out whether arms can be compared as asked, before anything is drawn for them.

    Args:
        config: What is asked.
        real: The real images.
        sources: The sources of synthetic images that there will be.
        pretrained: As of `arms_of`.

    Raises:
        InputError: An arm is unknown or cannot fill its trials, or there are no validation images or one class alone.
    """
    arms = arms_of(config, sources=sources, pretrained=pretrained)
    if len(real.train.class_names) < 2:
        raise InputError(
            f"downstream: classifiers need at least 2 classes, the set has {real.train.class_names[0]!r} alone; set "
            "downstream.seeds to 0."
        )
    if len(real.validation) == 0:
        raise InputError("downstream: arms are tuned on validation images; set dataset.split.validation_fraction.")
    try:
        for arm in arms:
            trials_for(arm, config.budget)
    except ValueError as error:
        raise InputError(f"downstream: {error}") from error


def arms_of(config: ArmsConfig, *, sources: Sequence[str], pretrained: Pretrained = "no") -> list[Arm]:
    """The arms that are asked for: declared ones in the order of the library, then combinations of parts.

    Args:
        config: Their names, or None for all that are declared.
        sources: The sources of synthetic images that there are.
        pretrained: What is said of the backbone: whether it saw more than the training images, and takes class labels.

    Raises:
        InputError: An arm or a part is unknown, parts do not go together, or synthetic images are not there.
    """
    known = {arm.name: arm for arm in arms_for(sources)}
    backbones = {arm.name: arm for arm in backbone_arms(sources, conditional=pretrained != "unconditional")}
    known |= {} if pretrained == "no" else backbones
    if config.arms is None:
        return list(known.values())
    wanted = [known[name] if name in known else _combined(name, known, backbones, sources) for name in config.arms]
    names = {arm.name for arm in wanted}
    return [*(arm for name, arm in known.items() if name in names), *(arm for arm in wanted if arm.name not in known)]


def _combined(name: str, known: Collection[str], backbones: Collection[str], sources: Sequence[str]) -> Arm:
    """An arm of parts."""
    try:
        return arm_named(name, sources=sources)
    except ValueError as error:
        if "+" in name and PLAIN not in name and name not in backbones:
            raise InputError(f"downstream.arms: {error}") from error
        undrawn = PLAIN in name and PLAIN not in sources
        why = ", as plan.baseline is off and no plain sample is drawn" if undrawn else ""
        if name in backbones and not set(backbones) <= set(known):
            why = ", as it needs backbone.pretrained_on, which says what the backbone saw"
        offered = dict.fromkeys([*known, *PARTS])
        raise InputError(
            f"downstream.arms: there is no arm {name} here{why}; {options(name, list(offered))}."
        ) from error


def resolved(config: DownstreamConfig) -> DownstreamConfig:
    """The same comparison with the manifest named: whatever is published meanwhile, it stays with one run.

    Raises:
        InputError: Nothing is published, or what is published cannot be compared on as asked; MLflow is asked for and
            cannot be used.
    """
    require_tracking()
    if config.manifest is None:
        config = config.model_copy(update={"manifest": latest_manifest(config.store, config.name)})
    open_arms(config)
    return config


def open_arms(config: DownstreamConfig) -> ArmsOnRun:
    """Open run and images, or return them from this process's memory.

    Raises:
        InputError: Something is missing, or does not fit together.
    """
    with _opening:
        return _open(config.model_dump_json())


@lru_cache(maxsize=2)
def _open(config_json: str) -> ArmsOnRun:
    config = DownstreamConfig.model_validate_json(config_json)
    assert config.manifest is not None, "resolved"
    run = open_published(config.manifest)
    device = prepare_device(config.device)
    sources = sources_of(run.config, policies=config.downstream.policies)
    arms = arms_of(config.downstream, sources=sources, pretrained=pretrained_kind(run.config, run.real))
    data = images_of_run(run, sorted({arm.source for arm in arms if arm.source is not None}))
    skipped = _without_images(arms, data)
    for name, reason in skipped.items():
        logging.getLogger(__name__).warning("training recipe %s is skipped: %s.", name, reason)
    arms = [arm for arm in arms if arm.name not in skipped]
    if not arms:
        raise NoArmError(skipped)
    if any(arm.uses_backbone for arm in arms):
        data = with_reading(run, data, config.downstream, device=device)
    try:
        comparison = Comparison(data, _budget(config.downstream), arms=arms, seeds=config.downstream.seeds)
    except ValueError as error:
        raise InputError(f"downstream: {error}") from error
    return ArmsOnRun(run, comparison, device, skipped)


def _without_images(arms: Sequence[Arm], data: DownstreamData) -> dict[str, str]:
    """The arms that have no synthetic images, at all or of a class that they learn from them alone -> why."""
    skipped = {
        arm.name: f"the run has no synthetic image of {arm.source}"
        for arm in arms
        if arm.source is not None and not len(data.synthetic[arm.source])
    }
    for arm in arms:
        lacking = [] if arm.name in skipped else _lacking_classes(arm, data)
        if lacking:
            skipped[arm.name] = (
                f"it learns from synthetic images alone, and class {', '.join(lacking)} has none; plan.quota above the "
                "commonest class draws for all"
            )
    return skipped


def _lacking_classes(arm: Arm, data: DownstreamData) -> list[str]:
    """Names of classes without a synthetic image, of an arm that learns from synthetic images alone."""
    if arm.source is None or arm.draws == "filled" or arm.synthetic_first or arm.synthetic_share < 1:
        return []
    there = set(data.synthetic[arm.source].labels.tolist())
    return [name for label, name in enumerate(data.class_names) if label not in there]


def skipped_arms(config: DownstreamConfig) -> dict[str, str]:
    """The arms that were asked for and are skipped, as they have no synthetic images -> why, in words.

    Raises:
        InputError: Something is missing, or does not fit together.
    """
    try:
        return dict(open_arms(config).skipped)
    except NoArmError as error:
        return error.skipped


def has_arms(config: DownstreamConfig) -> bool:
    """Whether there is an arm to train that is not skipped.

    Raises:
        InputError: Something is missing, or does not fit together.
    """
    try:
        return bool(open_arms(config).comparison.arms)
    except NoArmError:
        return False


def plan_tuning(config: DownstreamConfig) -> list[Job]:
    """The trainings among which every arm's settings are chosen, on validation images."""
    comparison = open_arms(config).comparison
    return [job for arm in comparison.arms for job in comparison.tuning(arm)]


def plan_tests(config: DownstreamConfig) -> list[Job]:
    """The trainings of the chosen settings, which predict the test images; after tuning is done."""
    opened = open_arms(config)
    jobs: list[Job] = []
    for arm in opened.comparison.arms:
        tests = opened.comparison.tests(arm, opened.read)
        assert tests is not None, "every arm is tuned first"
        jobs += tests
    return jobs


def name_of(job: Job) -> str:
    """A training in a few words."""
    return f"{job.trial.arm.name} {job.part} seed {job.seed}"


@task(task_run_name="{job.trial.arm.name}-{job.part}-{job.seed}", **TRIED_AGAIN)
def run_training(job: Job, config: DownstreamConfig) -> str:
    """Train one classifier unless its predictions are there already, and sound. Returns where they lie."""
    opened = open_arms(config)
    store, path = opened.run.store, opened.path(job)
    if not opened.is_done(job):
        predictions = run_trial(
            job.trial,
            job.seed,
            opened.comparison.data,
            settings=opened.comparison.settings,
            part=job.part,
            device=opened.device,
        )
        content = io.BytesIO()
        predictions.save(content)
        write_checked(store, path, content.getvalue())
    return path


def read_outcome(config: DownstreamConfig) -> Outcome:
    """What came of all trainings that are done."""
    opened = open_arms(config)
    return opened.comparison.outcome(opened.read)


def results_folder(config: DownstreamConfig) -> str:
    """Where results and report of a comparison lie in the run's store; other arms or budgets lie elsewhere."""
    content = config.downstream.model_dump(mode="json")
    if not config.downstream.policies:
        del content["policies"]  # as comparisons are called that were made before there were any
    if config.downstream.reading == ReadingSettings():
        del content["reading"]
    if config.downstream.budget.chosen_by == "worst_group":
        del content["budget"]["chosen_by"]
    settings = json.dumps(content, sort_keys=True)
    return f"downstream/{hashlib.sha256(settings.encode()).hexdigest()[:12]}"


def run_store(config: DownstreamConfig) -> Store:
    """The store of the run that is compared on."""
    return open_arms(config).run.store


def _budget(config: ArmsConfig) -> DownstreamSettings:
    """The budget, its weights found as a preset's paths are."""
    network = config.budget.network
    if network.weights is None:
        return config.budget
    return replace(config.budget, network=replace(network, weights=str(project_path(network.weights))))
