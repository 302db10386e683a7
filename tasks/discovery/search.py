"""Biased models of a search: planned, trained once each, and read back."""

import io
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from prefect import task

from datasets.readers.imageset import ImageSet
from datasets.storage.checked import DamagedError, read_checked, write_checked
from datasets.storage.store import Store
from minority.backbones import Backbone
from minority.discovery.biased_models import Answers, Fit, fit_and_ask, folds_of, planned_fits
from minority.downstream.data import LabelledImages
from minority.runtime.image_arrays import join
from minority.sampling.draw import draw
from minority.sampling.settings import SamplerSettings
from tasks.config.runs import DiscoverConfig
from tasks.errors import InputError
from tasks.execution.failures import TRIED_AGAIN
from tasks.inputs.real_data import RealData, load_real_data
from tasks.inputs.real_images import images_of
from tasks.inputs.workspace import open_fitting_backbone, prepare_device

_opening = threading.RLock()


@dataclass(frozen=True, eq=False)
class Search:
    """What the trainings of a search share.

    Attributes:
        real: The real images.
        train: The training images, by class.
        others: Validation, then test images, which no model is trained on.
        recipe: What decides its result, 12 hex digits.
        store: Where the search keeps what it makes.
        device: Where models are trained.
    """

    real: RealData
    train: LabelledImages
    others: LabelledImages
    recipe: str
    store: Store
    device: str


def open_search(config: DiscoverConfig) -> Search:
    """Read the images, or return them from this process's memory.

    Raises:
        InputError: The images cannot be read, or the search is not possible on them.
    """
    with _opening:
        return _open(config.model_dump_json())


@lru_cache(maxsize=2)
def _open(config_json: str) -> Search:
    config = DiscoverConfig.model_validate_json(config_json)
    real = load_real_data(config.dataset)
    if len(real.train.class_names) < 2:
        raise InputError("discover needs at least 2 classes; a biased model of one class gets nothing wrong.")
    if config.discovery.method == "cross_fitted":
        try:
            folds_of(real.train.labels, folds=config.discovery.folds, seed=config.discovery.seed)
        except ValueError as error:
            raise InputError(str(error)) from error
    identity = None
    if config.discovery.method == "amplifier":
        identity = _amplifier_backbone(config, real).identity
    recipe = config.recipe(backbone_identity=identity, real_digest=real.digest)
    return Search(
        real=real,
        train=_by_class([real.train]),
        others=_by_class([real.validation, real.test]),
        recipe=recipe,
        store=Store(config.store).child(config.name).child("discovered").child(recipe),
        device=prepare_device(config.device),
    )


def plan_samples(config: DiscoverConfig) -> list[int]:
    """The classes that plain samples are drawn of; none where the method needs none."""
    if config.discovery.method != "amplifier":
        return []
    return list(range(len(open_search(config).real.train.class_names)))


def plan_fits(config: DiscoverConfig) -> list[Fit]:
    """The trainings of a search."""
    return planned_fits(config.discovery)


@task(task_run_name="plain-samples-{label}", **TRIED_AGAIN)
def draw_plain_samples(label: int, config: DiscoverConfig) -> str:
    """Draw the plain samples of a class unless they are there, and sound. Returns where they lie."""
    search, path = open_search(config), _samples_path(label)
    if not _is_sound(search.store, path):
        count = config.discovery.samples_per_class
        drawn = draw(
            _amplifier_backbone(config, search.real),
            seed=config.discovery.seed,
            indices=range(label * count, (label + 1) * count),
            labels=[label] * count,
            settings=SamplerSettings(steps=config.discovery.sampler_steps),
            device=search.device,
        )
        _write_arrays(search.store, path, images=drawn.images)
    return path


@task(task_run_name="biased-model-{fit.key}", **TRIED_AGAIN)
def fit_biased_model(fit: Fit, config: DiscoverConfig) -> str:
    """Train one biased model and keep its answers, unless they are there, and sound. Returns where they lie."""
    search, path = open_search(config), _answers_path(fit)
    if not _is_sound(search.store, path):
        answers = fit_and_ask(
            fit,
            search.train,
            search.others,
            num_classes=len(search.real.train.class_names),
            settings=replace(config.discovery, budget=replace(config.discovery.budget, record_steps=False))
            if search.device == "cpu"
            else config.discovery,
            samples=_read_samples(config) if config.discovery.method == "amplifier" else None,
            device=search.device,
        )
        _write_arrays(search.store, path, train=answers.train, others=answers.others)
    return path


def read_answers(config: DiscoverConfig) -> list[Answers]:
    """What every model said.

    Raises:
        DamagedError: An answer is damaged; the same command makes it again.
    """
    store = open_search(config).store
    answers = [_read_arrays(store, _answers_path(fit)) for fit in plan_fits(config)]
    return [Answers(arrays["train"], arrays["others"]) for arrays in answers]


def _amplifier_backbone(config: DiscoverConfig, real: RealData) -> Backbone:
    assert config.backbone is not None, "checked in the config"
    backbone = open_fitting_backbone(config.backbone, real)
    if backbone.num_classes is None or backbone.prompts is not None:
        raise InputError(
            "discovery.method amplifier needs a backbone that takes the classes of the set as labels; train one with "
            "`minority train-backbone`, or set discovery.method to cross_fitted."
        )
    return backbone


def _read_samples(config: DiscoverConfig) -> LabelledImages:
    store, labels = open_search(config).store, plan_samples(config)
    images = [_read_arrays(store, _samples_path(label))["images"] for label in labels]
    named = np.repeat(np.array(labels, dtype=np.int64), [len(part) for part in images])
    return LabelledImages(np.concatenate(images), named, named)


def _by_class(parts: Sequence[ImageSet]) -> LabelledImages:
    labels = np.concatenate([part.labels for part in parts]).astype(np.int64)
    return LabelledImages(join([images_of(part) for part in parts]), labels, labels)


def _answers_path(fit: Fit) -> str:
    return f"answers/{fit.key}.npz"


def _samples_path(label: int) -> str:
    return f"samples/{label:05d}.npz"


def _write_arrays(store: Store, path: str, **arrays: np.ndarray) -> None:
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    write_checked(store, path, content.getvalue())


def _read_arrays(store: Store, path: str) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(read_checked(store, path)), allow_pickle=False) as content:
        return {name: content[name] for name in content.files}


def _is_sound(store: Store, path: str) -> bool:
    try:
        read_checked(store, path)
    except FileNotFoundError:
        return False
    except DamagedError as error:
        logging.getLogger(__name__).warning("%s It is made again.", error)
        return False
    return True
