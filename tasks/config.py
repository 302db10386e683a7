"""The config tree of a run: what Python, prefect.yaml, the command line and Prefect's form all fill in.

Knobs of the libraries are declared there, beside the code that obeys them; this tree only puts them together. Unknown
keys are errors.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from datasets.splits import SplitSettings
from datasets.store import Store
from datasets.store_url import require_no_secret
from datasets.table_settings import TableSettings, read_table_settings, table_settings
from minority.backbones import UpsamplerSettings
from minority.backbones.quality import QualitySettings
from minority.calibration import CalibrationSettings
from minority.classifier import ClassifierSettings
from minority.downstream.settings import DownstreamSettings
from minority.edit import EditSettings
from minority.extractors import ExtractorSettings
from minority.generation import SamplerSettings, ScoreSettings
from minority.selection import SelectionSettings
from minority.training import TrainingSettings
from minority.training.watch import WatchSettings
from tasks.capacity import Workers

#: Raise it when a change of the code changes images or verdicts, so that no run mixes old and new ones.
RECIPE_VERSION = 1

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class _Run(_Section):
    """What a flow is given. It is kept in Prefect's database, and goes into manifests and model cards."""

    @model_validator(mode="after")
    def _holds_no_secret(self) -> Self:
        for key, text in _texts(self.model_dump(mode="json")):
            require_no_secret(key, text)
        return self


def _texts(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a tree, with its dotted key."""
    if isinstance(node, dict):
        for name, below in node.items():
            yield from _texts(below, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for below in node:
            yield from _texts(below, key)
    elif isinstance(node, str):
        yield key, node


Reader = Literal[
    "digits", "celeba", "fashion_mnist", "cifar10", "image_table", "folder", "lsun", "imagenet", "published"
]


def _table(value: Any) -> Any:
    """Table settings as a run keeps them: whole, whether they were given as keys and values or as a YAML file."""
    if isinstance(value, str):
        return read_table_settings(project_path(value))
    return table_settings(value) if isinstance(value, dict) else value


class DatasetConfig(_Section):
    """The real images."""

    reader: Annotated[Reader, Field(description="How the images are read.")]
    folder: Annotated[
        str | None,
        Field(description="Where the files lie; data/... also below $MINORITY_DATA. A manifest for published sets."),
    ] = None
    target: Annotated[str, Field(description="Attribute to predict (celeba).")] = "Blond_Hair"
    protected: Annotated[
        str, Field(description="Attribute whose combinations with the target are groups (celeba).")
    ] = "Male"
    table: Annotated[
        TableSettings | None,
        BeforeValidator(_table, json_schema_input_type=TableSettings | str | None),
        Field(description="Where columns and images are (image_table): keys and values, or a YAML file that has them."),
    ] = None
    categories: Annotated[tuple[str, ...], Field(description="Scenes, one class each (lsun).")] = ("bedroom",)
    image_size: Annotated[
        int | None, Field(ge=8, description="Side in pixels that images are brought to; none: the reader's own.")
    ] = None
    source: Annotated[
        Literal["real", "synthetic"] | None, Field(description="Which images to take (published); none: both.")
    ] = None
    max_images: Annotated[
        int | None, Field(ge=1, description="Training images of a class, at most (lsun, imagenet); none: all.")
    ] = None
    split: Annotated[
        SplitSettings, Field(description="Test and validation share where the makers gave no parts; long tail.")
    ] = SplitSettings()


class StageConfig(_Section):
    """One pretrained diffusion model."""

    path: Annotated[
        str,
        Field(description="Diffusers folder, ADM checkpoint (.pt), hub id (owner/name), or package.module:function."),
    ]
    sha256: Annotated[str | None, Field(pattern="^[0-9a-f]{64}$", description="Checksum the weights must have.")] = None
    flags: Annotated[dict[str, Any], Field(description="ADM flags, e.g. preset: celeba64.")] = {}
    revision: Annotated[str | None, Field(description="Branch, tag or commit of a hub id.")] = None
    download: Annotated[bool, Field(description="Fetch a hub id that is not in the hub's cache.")] = False

    @property
    def decisive(self) -> dict[str, Any]:
        """What decides its images beside its files, whatever place they lie in."""
        return self.model_dump(mode="json", exclude={"path", "sha256", "revision", "download"})


class UpsamplerConfig(StageConfig):
    """The second stage of a two-stage backbone."""

    sampler: Annotated[UpsamplerSettings, Field(description="How it is drawn.")] = UpsamplerSettings()


class BackboneConfig(StageConfig):
    """The pretrained diffusion model, in one stage or in two. A YAML file may hold the whole section."""

    upsampler: Annotated[
        UpsamplerConfig | None, Field(description="Makes the images of `path`, which are drawn and guided, larger.")
    ] = None

    @property
    def decisive(self) -> dict[str, Any]:
        """What decides its images beside its files, in both stages."""
        return super().decisive | {"upsampler": None if self.upsampler is None else self.upsampler.decisive}


def _backbone(value: Any) -> Any:
    """The backbone section, whether it was given as keys and values, as a YAML file, or as a path alone."""
    if not isinstance(value, str):
        return value
    return read_yaml_section(value) if value.endswith((".yaml", ".yml")) else {"path": value}


def read_yaml_section(path: str) -> dict[str, Any]:
    """A section of the config in a file of its own.

    Raises:
        ValueError: Where the file is missing, is no YAML, or holds no keys and values.
    """
    try:
        content = yaml.safe_load(project_path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read as YAML ({str(error).splitlines()[0]}); look at the file.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold keys and values, e.g. `path: backbones/digits`; got {content!r}.")
    return content


#: A backbone section in any of its forms.
Backbone = Annotated[BackboneConfig, BeforeValidator(_backbone, json_schema_input_type=BackboneConfig | str)]


class PlanConfig(_Section):
    """How many images are drawn for whom."""

    quota: Annotated[
        int | None, Field(ge=1, description="Images a group, real and synthetic; none: as many as the commonest has.")
    ] = None
    expected_yield: Annotated[
        float, Field(gt=0, le=1, description="Share of candidates expected to be kept in the first round.")
    ] = 0.3
    max_rounds: Annotated[int, Field(ge=1, description="Rounds of drawing before quotas are given up.")] = 4
    candidates_per_image: Annotated[
        float, Field(ge=1, description="Candidate budget: at most so many a missing image.")
    ] = 8.0
    unit_size: Annotated[int, Field(ge=1, description="Samples a work unit: the grain of retry and resume.")] = 64
    baseline: Annotated[bool, Field(description="Also draw plain ancestral samples, for comparison only.")] = True


class PublishConfig(_Section):
    """What the published dataset holds."""

    real: Annotated[bool, Field(description="Real training images beside the synthetic ones.")] = True
    samples_per_shard: Annotated[int, Field(ge=1, description="Images a tar.")] = 1000


class ArmsConfig(_Section):
    """The training recipes that are compared, and the budget that every one of them gets."""

    arms: Annotated[
        tuple[str, ...] | None,
        Field(min_length=1, description="Names of arms, e.g. real, dfr, real+minority; none: all there are."),
    ] = None
    seeds: Annotated[int, Field(ge=0, description="Tested classifiers an arm; 0 trains none.")] = 5
    budget: DownstreamSettings = DownstreamSettings()


class AugmentConfig(_Run):
    """One augmentation run."""

    name: Annotated[Name, Field(description="The dataset's name in the store.")]
    dataset: DatasetConfig
    backbone: Backbone
    sampler: SamplerSettings = SamplerSettings()
    edit: Annotated[
        EditSettings | None, Field(description="Vary labelled real images instead of drawing from noise; none: draw.")
    ] = None
    scores: ScoreSettings = ScoreSettings()
    features: Annotated[ExtractorSettings, Field(description="Where images are compared.")] = ExtractorSettings()
    selection: SelectionSettings = SelectionSettings()
    labeller: Annotated[
        ClassifierSettings, Field(description="Recognises groups where the backbone takes no label that tells them.")
    ] = ClassifierSettings()
    plan: PlanConfig = PlanConfig()
    publish: PublishConfig = PublishConfig()
    downstream: Annotated[
        ArmsConfig | None, Field(description="Compare arms in this very run; none: leave it to the flow downstream.")
    ] = None
    seed: Annotated[int, Field(ge=0, lt=2**63, description="Every sample is a function of seed and index.")] = 0
    store: Annotated[str, Field(min_length=1, description="Folder or fsspec URL that receives the dataset.")] = "runs"
    run_id: Annotated[Name | None, Field(description="Name of the run; none: its recipe.")] = None
    device: Annotated[Literal["auto", "cpu", "cuda"], Field(description="auto: a GPU where there is one.")] = "auto"
    workers: Workers = Workers()
    units_a_task: Annotated[
        int | None, Field(ge=1, description="Work units a task run; none: one, or more where a round has very many.")
    ] = None

    def comparison(self, manifest: str) -> "DownstreamConfig | None":
        """The comparison of arms on this run, once it is published; None where none is asked for."""
        if self.downstream is None or self.downstream.seeds == 0:
            return None
        return DownstreamConfig(
            name=self.name,
            manifest=manifest,
            downstream=self.downstream,
            store=self.store,
            device=self.device,
            workers=self.workers,
        )

    @model_validator(mode="after")
    def _edited_samples_have_one_start(self) -> Self:
        starts = [name for name in ("boost_and_skip", "prune_and_branch") if getattr(self.sampler, name) is not None]
        if self.edit is not None and starts:
            raise ValueError(f"edit starts every sample from an image of its own; leave sampler.{starts[0]} out.")
        return self

    def recipe(self, *, backbone_identity: str) -> str:
        """12 hex digits over everything that decides which images are published.

        Args:
            backbone_identity: `Backbone.identity` of the backbone that is used.
        """
        beside_the_images = {"store", "run_id", "device", "workers", "units_a_task", "downstream", "backbone"}
        decisive = self.model_dump(mode="json", exclude=beside_the_images)
        if self.edit is None:
            del decisive["edit"]
        decisive |= {"version": RECIPE_VERSION, "backbone": [backbone_identity, self.backbone.decisive]}
        text = json.dumps(decisive, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


class DownstreamConfig(_Run):
    """One comparison of arms on a published run."""

    name: Annotated[Name, Field(description="The dataset's name in the store.")]
    manifest: Annotated[
        str | None, Field(description="File name or URL of a published run's manifest; none: the dataset's latest.")
    ] = None
    downstream: ArmsConfig = ArmsConfig()
    store: Annotated[str, Field(min_length=1, description="Folder or fsspec URL that holds the dataset.")] = "runs"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: Workers = Workers()


class CalibrateConfig(_Run):
    """One search for sampler settings. Uses training and validation images, never test images."""

    name: Annotated[Name, Field(description="The preset's name.")]
    dataset: DatasetConfig
    backbone: Backbone
    sampler: Annotated[
        SamplerSettings, Field(description="In use now: compared with, and kept where not searched.")
    ] = SamplerSettings()
    features: ExtractorSettings = ExtractorSettings()
    selection: SelectionSettings = SelectionSettings()
    labeller: ClassifierSettings = ClassifierSettings()
    calibration: CalibrationSettings = CalibrationSettings()
    unit_size: Annotated[int, Field(ge=1, description="Samples a task: the grain of retry and resume.")] = 256
    seed: Annotated[int, Field(ge=0, lt=2**63, description="Decides all noise, and the draw from the space.")] = 0
    store: Annotated[str, Field(min_length=1, description="Folder or fsspec URL that receives the result.")] = "runs"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: Workers = Workers()

    def augment(self) -> AugmentConfig:
        """The augmentation run whose sampler is searched."""
        shared = (
            "name",
            "dataset",
            "backbone",
            "sampler",
            "features",
            "selection",
            "labeller",
            "seed",
            "store",
            "device",
            "workers",
        )
        return AugmentConfig(**{name: getattr(self, name) for name in shared})

    def recipe(self, *, backbone_identity: str) -> str:
        """12 hex digits over everything that decides the result.

        Args:
            backbone_identity: `Backbone.identity` of the backbone that is used.
        """
        decisive = self.model_dump(mode="json", exclude={"store", "device", "workers", "backbone"})
        decisive |= {"version": RECIPE_VERSION, "backbone": [backbone_identity, self.backbone.decisive]}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:12]


class BackboneArchitecture(_Section):
    """A diffusers UNet2DModel: the arguments that are not the dataset's."""

    block_out_channels: tuple[int, ...] = (32, 64)
    layers_per_block: Annotated[int, Field(ge=1)] = 1
    down_block_types: tuple[str, ...] = ("DownBlock2D", "AttnDownBlock2D")
    up_block_types: tuple[str, ...] = ("AttnUpBlock2D", "UpBlock2D")
    attention_head_dim: Annotated[int, Field(ge=1)] = 16
    norm_num_groups: Annotated[int, Field(ge=1)] = 8
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.15


class TrainBackboneConfig(_Run):
    """One training run of a backbone."""

    name: Annotated[Name, Field(description="The backbone's name.")]
    dataset: DatasetConfig
    architecture: BackboneArchitecture = BackboneArchitecture()
    conditional: Annotated[
        bool, Field(description="Whether the network is told the label; where not, labels only balance the classes.")
    ] = True
    schedule: Annotated[Literal["linear", "cosine"], Field(description="Noise schedule.")] = "cosine"
    timesteps: Annotated[int, Field(ge=2, description="Trained timesteps.")] = 1000
    training: TrainingSettings = TrainingSettings()
    watch: Annotated[
        WatchSettings | None, Field(description="Samples, bits/dim and FID on the way, e.g. {every: 500}; none: none.")
    ] = None
    quality: Annotated[QualitySettings, Field(description="How the result is judged for its model card.")] = (
        QualitySettings()
    )
    published: Annotated[
        str | None, Field(description="Published figures to compare with and their source, in words for the card.")
    ] = None
    out: Annotated[str, Field(min_length=1, description="Folder that receives the trained backbone.")]
    device: Literal["auto", "cpu", "cuda"] = "auto"
    processes: Annotated[
        int, Field(ge=1, description="GPUs that share every batch, or processes where there are none (accelerate).")
    ] = 1

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        training = self.training
        parts = training.accumulate * self.processes
        if training.batch_size % parts:
            raise ValueError(
                f"training.batch_size must be a multiple of training.accumulate x processes = {parts}, got "
                f"{training.batch_size}."
            )
        if training.label_dropout > 0 and not self.conditional:
            raise ValueError("training.label_dropout needs labels to leave out; set it to 0, or conditional to true.")
        return self


Run = TypeVar("Run", AugmentConfig, CalibrateConfig, DownstreamConfig)


def placed(config: Run) -> Run:
    """The same run with its store named so that workers with another current folder find it.

    Raises:
        ValueError: The store's URL is none.
    """
    return config.model_copy(update={"store": Store(config.store).root})


def project_path(path: str) -> Path:
    """A path of a preset: as it is where it exists or is absolute, else beside prefect.yaml."""
    given = Path(path).expanduser()
    if given.is_absolute() or given.exists():
        return given
    return Path(__file__).resolve().parent.parent / given


def data_path(path: str) -> Path:
    """A folder of real images: as `project_path`, but data/... may lie below the folder that MINORITY_DATA names."""
    found, elsewhere = project_path(path), os.environ.get("MINORITY_DATA")
    if not found.exists() and elsewhere and Path(path).parts[:1] == ("data",):
        return Path(elsewhere, *Path(path).parts[1:])
    return found
