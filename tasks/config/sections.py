"""The sections of a run's config: the real images, the backbone, the plan, what is published, what is compared.

Knobs of the libraries are declared there, beside the code that obeys them. Unknown keys are errors.
"""

from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from datasets.readers.table_settings import TableSettings, read_table_settings, table_settings
from datasets.splits.stratified import SplitSettings
from minority.downstream.settings import DownstreamSettings
from minority.sampling.two_stage import UpsamplerSettings
from tasks.config.paths import project_path
from tasks.config.prompts import PromptsConfig


class Section(BaseModel):
    """A part of a config: frozen, and without keys that are not declared."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


Reader = Literal[
    "digits", "celeba", "fashion_mnist", "cifar10", "image_table", "folder", "lsun", "imagenet", "published"
]


def _table(value: Any) -> Any:
    """Table settings as a run keeps them: whole, whether they were given as keys and values or as a YAML file."""
    if isinstance(value, str):
        return read_table_settings(project_path(value))
    return table_settings(value) if isinstance(value, dict) else value


class DatasetConfig(Section):
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


class StageConfig(Section):
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

    prompts: Annotated[
        PromptsConfig | None, Field(description="Of a text-to-image model: what the groups are called; none of others.")
    ] = None
    size: Annotated[
        int | None, Field(ge=8, description="Side in pixels that a text-to-image model draws at; none: its own.")
    ] = None
    fit: Annotated[
        bool,
        Field(description="Whether images are resized, and grey or coloured, between the model's size and the set's."),
    ] = False
    distilled: Annotated[
        bool | None,
        Field(description="Whether a text-to-image model was distilled to few steps (Turbo, Lightning); none: ask it."),
    ] = None
    told_guidance: Annotated[
        float | None, Field(ge=0, description="Guidance scale that FLUX.1-dev is told as an input; none: 3.5.")
    ] = None

    upsampler: Annotated[
        UpsamplerConfig | None, Field(description="Makes the images of `path`, which are drawn and guided, larger.")
    ] = None

    @property
    def decisive(self) -> dict[str, Any]:
        """What decides its images beside its files, in both stages."""
        return super().decisive | {"upsampler": None if self.upsampler is None else self.upsampler.decisive}

    @model_serializer(mode="wrap")
    def _without_defaults_of_text(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What concerns text-to-image models is shown where it is set, so that others' recipes stay as they were."""
        content: dict[str, Any] = serialise(self)
        defaults = {"prompts": None, "size": None, "fit": False, "distilled": None, "told_guidance": None}
        return {key: value for key, value in content.items() if key not in defaults or value != defaults[key]}


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


class PlanConfig(Section):
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


class PublishConfig(Section):
    """What the published dataset holds."""

    real: Annotated[bool, Field(description="Real training images beside the synthetic ones.")] = True
    samples_per_shard: Annotated[int, Field(ge=1, description="Images a tar.")] = 1000


class ArmsConfig(Section):
    """The training recipes that are compared, and the budget that every one of them gets."""

    arms: Annotated[
        tuple[str, ...] | None,
        Field(min_length=1, description="Names of arms, e.g. real, dfr, real+minority; none: all there are."),
    ] = None
    seeds: Annotated[int, Field(ge=0, description="Tested classifiers an arm; 0 trains none.")] = 5
    budget: DownstreamSettings = DownstreamSettings()


class BackboneArchitecture(Section):
    """A diffusers UNet2DModel: the arguments that are not the dataset's."""

    block_out_channels: tuple[int, ...] = (32, 64)
    layers_per_block: Annotated[int, Field(ge=1)] = 1
    down_block_types: tuple[str, ...] = ("DownBlock2D", "AttnDownBlock2D")
    up_block_types: tuple[str, ...] = ("AttnUpBlock2D", "UpBlock2D")
    attention_head_dim: Annotated[int, Field(ge=1)] = 16
    norm_num_groups: Annotated[int, Field(ge=1)] = 8
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.15
