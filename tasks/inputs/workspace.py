"""What a worker process needs to work on the units of a run: loaded once, kept for all of them."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel

from datasets.readers.folder import is_flat
from datasets.readers.names.class_names import whole_numbers
from datasets.storage.store import Store
from minority.backbones import Backbone, BackboneError
from minority.backbones.fitted import fitted
from minority.backbones.text.adapters import AdapterSettings
from minority.backbones.text.folder import TextToImage, family_of
from minority.backbones.text.prompts import Prompts
from minority.features import Extractor, build_extractor
from minority.sampling.edit import EditSettings
from minority.sampling.two_stage import join_stages
from minority.selection.filter_contract import CandidateFilter
from minority.selection.labelling import Labeller
from tasks.config.paths import project_path
from tasks.config.presets import training_of, validate
from tasks.config.runs import AugmentConfig
from tasks.config.sections import BackboneConfig, StageConfig, read_yaml_section
from tasks.errors import InputError
from tasks.inputs.backbone_files import load_stage
from tasks.inputs.factor_filter import FactorFilter, fitted_factor_filter
from tasks.inputs.fitted import fitted_filter, fitted_label_floor, fitted_labeller
from tasks.inputs.group_prompts import prompts_for
from tasks.inputs.planned_groups import GroupValues, planned_real_data
from tasks.inputs.real_data import RealData
from tasks.inputs.real_features import check_features, real_features
from tasks.inputs.real_images import RealImages
from tasks.inputs.run_identity import RunIdentity

_loading = threading.RLock()


@dataclass(frozen=True, eq=False)
class Models:
    """What is loaded for a run, and needs no training.

    Attributes:
        run: Which run it is.
        real: The real images.
        backbone: The diffusion model, on its device.
        extract: Turns images into the features in which they are compared.
        train_images: (N, H, W, C) uint8, the real training images, read where they are needed.
        device: Where the backbone computes.
    """

    run: RunIdentity
    real: RealData
    backbone: Backbone
    extract: Extractor
    train_images: RealImages
    device: str

    @cached_property
    def features(self) -> NDArray[np.floating]:
        """(N, D) features of the real training images: those that lie in the store, the others made now."""
        return self._features(mirrored=False)

    @cached_property
    def mirrored_features(self) -> NDArray[np.floating]:
        """(N, D) the same of the real training images mirrored left to right."""
        return self._features(mirrored=True)

    def _features(self, *, mirrored: bool) -> NDArray[np.floating]:
        return real_features(self.extract, self.train_images, store=self.run.dataset_store, mirrored=mirrored)

    @property
    def config(self) -> AugmentConfig:
        """The run's config."""
        return self.run.config

    @property
    def recipe(self) -> str:
        """The run's recipe."""
        return self.run.recipe

    @property
    def run_id(self) -> str:
        """The run's name: as configured, or its recipe."""
        return self.run.run_id

    @property
    def store(self) -> Store:
        """The store of all datasets."""
        return self.run.store

    @cached_property
    def _rows(self) -> list[int]:
        """What a backbone with separate conditions is told of every group."""
        assert self.backbone.factors is not None, "asked of such backbones alone"
        return GroupValues(self.real).rows(self.backbone.factors)

    @property
    def needs_labeller(self) -> bool:
        """Whether groups have to be recognised: there are several, and the backbone's label does not tell them.

        A prompt does not: it may not have been obeyed.
        """
        takes_label = self.backbone.num_classes is not None and self.backbone.prompts is None
        label_tells = takes_label and self.real.has_one_group_a_label
        return len(self.real.groups) > 1 and not label_tells and not self.needs_factor_filter

    @property
    def needs_factor_filter(self) -> bool:
        """Whether label and attributes are told by a classifier each: groups may have no real image to learn from."""
        return self.backbone.factors is not None or self.config.plan.groups != "observed"

    def condition_of(self, *, labels: list[int], groups: list[int]) -> list[int] | None:
        """What the backbone is told of images: their labels, their groups where it draws by them, or nothing."""
        if self.backbone.num_classes is None:
            return None
        if self.backbone.factors is not None:
            rows = self._rows
            return [rows[group] for group in groups]
        return labels if self.backbone.prompts is None else groups


@dataclass(frozen=True, eq=False)
class Workspace(Models):
    """Everything that the units of one run share: what is loaded, and what was fitted once (tasks/inputs/fitted.py).

    Attributes:
        candidate_filter: Fitted on the real training split.
        labeller: Recognises groups; None where the backbone's label tells them.
        label_floor: Confidence from which a recognised group is believed: as configured, or fitted on the validation
            split.
        factor_filter: Tells label and attributes; None where groups are told by the label, or by the labeller.
    """

    candidate_filter: CandidateFilter
    labeller: Labeller | None
    label_floor: float
    factor_filter: FactorFilter | None

    @property
    def thresholds(self) -> dict[str, float]:
        """Where the filters cut, by the published table's names of the scores."""
        thresholds = dict(self.candidate_filter.thresholds)
        if self.labeller is not None:
            thresholds.pop("label_agreement", None)  # the labeller's answer takes its place
            thresholds["labeller_confidence"] = self.label_floor
        return thresholds

    @property
    def sparse_groups(self) -> list[bool]:
        """Which groups have so few real images that a gate decides on them; none where nothing tells what they show."""
        return [] if self.factor_filter is None else self.factor_filter.sparse.tolist()

    @property
    def spacing(self) -> float | None:
        """Distance up to which two kept samples are look-alikes; None where they are kept in order."""
        return self.candidate_filter.spacing if self.config.selection.diverse else None


def open_models(config: AugmentConfig) -> Models:
    """Load backbone and real images, or return them from this process's memory. Nothing is trained for the filter.

    Raises:
        InputError: Something is missing, unreadable, or does not fit together.
    """
    with _loading:
        return _open_models(config.model_dump_json())


def open_workspace(config: AugmentConfig) -> Workspace:
    """Open what the units of a run share, or return it from this process's memory.

    Filter and labeller come from the store, where `fit_once` has put them before the first unit; what is not there is
    fitted now, and put there.

    Raises:
        InputError: Something is missing, unreadable, or does not fit together.
        StoreError: The store cannot be read or written.
    """
    with _loading:
        return _open_workspace(config.model_dump_json())


@lru_cache(maxsize=2)
def _open_models(config_json: str) -> Models:
    config = AugmentConfig.model_validate_json(config_json)
    device = prepare_device(config.device)
    real = planned_real_data(config)
    backbone = open_fitting_backbone(config.backbone, real)
    if config.edit is not None:
        _require_editable(config.edit, backbone, real)
    images = real.train_images
    backbone = backbone.to(device)
    recipe = config.recipe(backbone_identity=backbone.identity, real_digest=real.digest)
    run = RunIdentity(config, recipe, real_digest=real.digest)
    extract = _extractor(config, backbone, images, real.train.labels, device=device)
    return Models(run=run, real=real, backbone=backbone, extract=extract, train_images=images, device=device)


def _require_editable(edit: EditSettings, backbone: Backbone, real: RealData) -> None:
    """Refuse edits that the backbone could not tell from others, and masks that the set has not."""
    knows_attributes = backbone.factors is not None or backbone.prompts is not None
    knows_groups = knows_attributes or (backbone.num_classes is not None and real.has_one_group_a_label)
    if edit.sources == "label" and not knows_attributes:
        raise InputError(
            f"edit.sources is label, but backbone {backbone.name} is told no attributes, so it would move no image "
            "into another group; set it to group, or train a backbone with conditions (train-backbone)."
        )
    if edit.sources == "other_groups" and not knows_groups:
        raise InputError(
            f"edit.sources is other_groups, but backbone {backbone.name} is not told the group that it draws, so it "
            "would move no image there; set it to group, or take a backbone with prompts or conditions."
        )
    if edit.masked and real.train.has_mask is None:
        raise InputError(
            "edit.masked is set, but the set has no masks; name the column of its table that has them "
            "(dataset.table.mask_column)."
        )


@lru_cache(maxsize=2)
def _open_workspace(config_json: str) -> Workspace:
    models = _open_models(config_json)
    try:
        candidate_filter = fitted_filter(models)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"selection: {error}") from error
    labeller = _labeller(models)
    return Workspace(
        **_fields_of(models),
        candidate_filter=candidate_filter,
        labeller=labeller,
        label_floor=_floor(models, labeller),
        factor_filter=_factor_filter(models),
    )


def _fields_of(models: Models) -> dict[str, Any]:
    """The fields of the models, without what was worked out from them."""
    return {field.name: getattr(models, field.name) for field in fields(models)}


def _factor_filter(models: Models) -> FactorFilter | None:
    if not models.needs_factor_filter:
        return None
    return fitted_factor_filter(
        models.run.dataset_store,
        models.real,
        models.train_images,
        models.features,
        settings=models.config.labeller,
        neighbours=models.config.selection.neighbours,
        device=models.device,
    )


def _labeller(models: Models) -> Labeller | None:
    if not models.needs_labeller:
        return None
    return fitted_labeller(
        models.run.dataset_store,
        models.train_images,
        models.real.train_groups,
        num_groups=len(models.real.groups),
        settings=models.config.labeller,
        device=models.device,
    )


def _floor(models: Models, labeller: Labeller | None) -> float:
    settings = models.config.selection
    if labeller is None or settings.label_precision is None:
        return settings.label_floor
    return fitted_label_floor(models.run.dataset_store, labeller, models.real, precision=settings.label_precision)


def _extractor(
    config: AugmentConfig,
    backbone: Backbone,
    images: RealImages,
    labels: NDArray[np.int64],
    *,
    device: str,
) -> Extractor:
    try:
        extract = build_extractor(
            config.features, backbone=backbone, train_images=images, train_labels=labels, device=device
        )
        check_features(extract, images)
    except ValueError as error:
        raise InputError(f"features: {error}") from error
    return extract


def prepare_device(wanted: str) -> str:
    """ "cpu" or "cuda", ready for units and trainings that run side by side.

    Raises:
        InputError: A GPU is demanded and there is none.
    """
    device = choose_device(wanted)
    if device == "cpu":
        # One thread each, so that neither bytes nor predictions depend on the number of cores.
        torch.set_num_threads(1)
    return device


def choose_device(wanted: str) -> str:
    """ "cpu" or "cuda".

    Raises:
        InputError: A GPU is demanded and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("device is cuda, but this machine shows no CUDA device; set device to auto or cpu.")
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted


def open_fitting_backbone(config: BackboneConfig, real: RealData) -> Backbone:
    """Load the backbone that is to draw for a set, brought to the set's images where the config says so.

    Raises:
        InputError: In one line, what is wrong with it, or why it does not fit.
    """
    backbone = open_backbone(config, real)
    height, width, channels = real.train.image_shape
    if config.fit and backbone.image_shape != (channels, height, width):
        try:
            backbone = fitted(backbone, (channels, height, width))
        except BackboneError as error:
            raise InputError(f"backbone.fit: {error}") from error
    _require_fit(backbone, real)
    return backbone


def open_backbone(config: BackboneConfig, real: RealData | None = None, *, without_prompts: bool = False) -> Backbone:
    """Load a backbone and check its checksum.

    Args:
        config: Its path, checksum, prompts and sizes.
        real: The set whose groups its prompts are for; None where there is none.
        without_prompts: Open a text-to-image folder although no prompts are given; it then draws for no label.

    Raises:
        InputError: In one line, what is wrong with it.
    """
    first = _open_stage(config, setting="backbone", text=_text_settings(config, real, without_prompts=without_prompts))
    if config.upsampler is None:
        return first
    upsampler = _open_stage(config.upsampler, setting="backbone.upsampler")
    try:
        return join_stages(first, upsampler, settings=config.upsampler.sampler)
    except ValueError as error:
        raise InputError(f"backbone.upsampler: {error}") from error


def open_named_backbone(source: str, flags: Mapping[str, Any], *, without_prompts: bool = False) -> Backbone:
    """Load a backbone by what the command line calls it.

    Args:
        source: The path of a backbone section, or the YAML file of a whole one.
        flags: ADM flags, over those of the file.
        without_prompts: Open a text-to-image model although no prompts are given; it then draws for no label.

    Raises:
        InputError: In one line, what is wrong with it.
    """
    overrides = {f"backbone.flags.{name}": value for name, value in flags.items()}
    try:
        section = read_yaml_section(source) if source.endswith((".yaml", ".yml")) else {"path": source}
    except ValueError as error:
        raise InputError(f"backbone: {error}") from error
    config = validate(_Named, {"backbone": section}, overrides=overrides).backbone
    return open_backbone(config, without_prompts=without_prompts)


class _Named(BaseModel):
    """The backbone section as a config of its own."""

    backbone: BackboneConfig


def _text_settings(config: BackboneConfig, real: RealData | None, *, without_prompts: bool) -> TextToImage | None:
    unprompted = config.prompts is None and without_prompts and family_of(project_path(config.path)) is not None
    if config.prompts is None and not unprompted:
        lost = [
            name for name in ("size", "distilled", "embedded_guidance", "offload") if getattr(config, name) is not None
        ]
        lost += ["adapters"] if config.adapters else []
        if lost:
            raise InputError(f"backbone.{lost[0]} is of text-to-image models; set backbone.prompts, too.")
        return None
    return TextToImage(
        prompts=Prompts(texts=()) if config.prompts is None else prompts_for(config.prompts, real),
        size=config.size,
        distilled=config.distilled,
        guidance=config.embedded_guidance,
        offload=config.offload,
        adapters=tuple(
            AdapterSettings(path=project_path(adapter.path), strength=adapter.strength, token=adapter.token)
            for adapter in config.adapters
        ),
    )


def _open_stage(config: StageConfig, *, setting: str, text: TextToImage | None = None) -> Backbone:
    if not project_path(config.path).exists() and (command := training_of(config.path)) is not None:
        raise InputError(f"{setting}: {config.path} is not trained yet; run {command} first, or name another backbone.")
    try:
        backbone = load_stage(config, text=text)
    except BackboneError as error:
        raise InputError(f"{setting}: {error}") from error
    if config.sha256 is not None and backbone.sha256 != config.sha256:
        raise InputError(
            f"{setting} {config.path} has SHA-256 {backbone.sha256}, expected {config.sha256[:12]}...; "
            f"fetch it again or correct {setting}.sha256."
        )
    return backbone


def _require_fit(backbone: Backbone, real: RealData) -> None:
    height, width, channels = real.train.image_shape
    if backbone.image_shape != (channels, height, width):
        raise InputError(
            f"backbone {backbone.name} makes images of {backbone.image_shape} (C, H, W), the dataset has "
            f"{(channels, height, width)}; choose a backbone of that shape or another image size, or set "
            "backbone.fit where it is a latent one."
        )
    known = None if backbone.prompts is not None else backbone.num_classes
    if known is not None and known < len(real.train.class_names):
        raise InputError(
            f"backbone {backbone.name} knows {known} classes, the dataset has "
            f"{len(real.train.class_names)}; choose a backbone trained on all of them."
        )
    if backbone.factors is not None:
        GroupValues(real).rows(backbone.factors)  # refuses what it cannot be told
    elif real.absent and backbone.prompts is None:
        raise InputError(
            f"plan.groups asks for {next(iter(real.absent))!r}, which has no real image, and backbone {backbone.name} "
            "is told no attributes; train one with conditions (train-backbone), or draw by prompts."
        )
    if backbone.num_classes is not None and is_flat(real.train):
        raise InputError(
            f"dataset.folder has no class folders, and backbone {backbone.name} needs labels; sort the images into "
            "class folders, or choose an unconditional backbone."
        )
    numbers = whole_numbers(real.train.class_names)
    is_subset = backbone.num_classes is not None and backbone.num_classes > len(real.train.class_names)
    if numbers is not None and is_subset and numbers != list(range(len(numbers))):
        raise InputError(
            f"the dataset has the classes {', '.join(real.train.class_names)}, backbone {backbone.name} knows "
            f"{backbone.num_classes} and would take them for 0 ... {len(numbers) - 1}; give images of every class, or "
            "choose a backbone trained on these."
        )
