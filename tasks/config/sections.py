"""The sections of a run's config: the real images, the backbone, the plan, what is published, what is compared.

Knobs of the libraries are declared there, beside the code that obeys them. Unknown keys are errors.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    WrapSerializer,
    model_serializer,
    model_validator,
)

from datasets.readers.image_tars import TarSettings
from datasets.readers.tables.table_settings import TableSettings, read_table_settings, table_settings
from datasets.splits.pool import PoolSettings
from datasets.splits.stratified import SplitSettings
from datasets.storage.store_url import holds_secret
from datasets.storage.yaml_text import load_yaml, plain
from minority.backbones.backbone import Offload
from minority.calibration.search import CalibrationSettings
from minority.calibration.space import without_empty_grids
from minority.downstream.settings import DownstreamSettings
from minority.evaluation.backbone_reading import ReadingSettings
from minority.evaluation.prompt_quality import PromptQualitySettings
from minority.sampling.named_samplers import named_sampler
from minority.sampling.settings import SamplerSettings, without_absent_methods
from minority.sampling.two_stage import UpsamplerSettings
from minority.selection.policy import Policy
from minority.training.text.settings import TextModelSettings
from tasks.config.paths import project_path
from tasks.config.prompts import PromptsConfig
from tasks.config.recipe import differing
from tasks.config.renamed import under_new_names
from tasks.config.written import as_declared


class Section(BaseModel):
    """A part of a config: frozen, and without keys that are not declared."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


Reader = Literal[
    "digits",
    "coloured_digits",
    "celeba",
    "fashion_mnist",
    "cifar10",
    "image_table",
    "image_tars",
    "folder",
    "lsun",
    "imagenet",
    "published",
]

#: What each reader looks at beside its own name; any other setting has no effect on it.
_USED: dict[Reader, set[str]] = {
    "digits": {"split", "pool"},
    "coloured_digits": {"colours", "split"},
    "celeba": {"folder", "target", "protected", "image_size"},
    "fashion_mnist": {"folder", "image_size", "split", "pool"},
    "cifar10": {"folder", "split", "pool"},
    "image_table": {"folder", "table", "image_size", "split", "pool"},
    "image_tars": {"folder", "tars", "image_size", "split"},
    "folder": {"folder", "classes", "image_size", "split", "pool"},
    "lsun": {"folder", "categories", "image_size", "max_images", "split"},
    "imagenet": {"folder", "image_size", "max_images", "split"},
    "published": {"folder", "source", "split"},
}


def settings_of_reader(reader: Reader) -> set[str]:
    """The settings of a set that have an effect on what one reader gives."""
    return _USED[reader] | {"reader", "discovered", "discovered_column"}


def _table(value: Any) -> Any:
    """Table settings as a run keeps them: whole, whether they were given as keys and values or as a YAML file."""
    if isinstance(value, str):
        return read_table_settings(project_path(value))
    return table_settings(value) if isinstance(value, dict) else value


def _is_none(value: object) -> bool:
    return value is None


def _is_observed(value: object) -> bool:
    return value == "observed"


def _is_half(value: object) -> bool:
    return value == 0.5


def _is_false(value: object) -> bool:
    return value is False


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
    tars: Annotated[
        TarSettings | None,
        # So that runs of other readers keep their recipe.
        Field(description="Which tars are read, and what their classes are (image_tars).", exclude_if=_is_none),
    ] = None
    classes: Annotated[
        tuple[str, ...],
        Field(description="Class folders in the order of their labels, others passed over (folder); none: all."),
    ] = ()
    categories: Annotated[tuple[str, ...], Field(description="Scenes, one class each (lsun).")] = ("bedroom",)
    colours: Annotated[
        Literal["skewed", "even"] | None,
        # So that runs of other readers keep their recipe.
        Field(
            description="Two colours, one rare for each digit, or all six evenly (coloured_digits); none: skewed.",
            exclude_if=_is_none,
        ),
    ] = None
    image_size: Annotated[
        int | None, Field(ge=8, description="Side in pixels that images are brought to; none: the reader's own.")
    ] = None
    source: Annotated[
        Literal["real", "synthetic"] | None, Field(description="Which images to take (published); none: both.")
    ] = None
    max_images: Annotated[
        int | None, Field(ge=1, description="Training images of a class, at most (lsun, imagenet); none: all.")
    ] = None
    discovered: Annotated[
        str | None,
        Field(
            description="Table of `minority discover` (.parquet, or a .csv) whose column makes groups; none: as read.",
            exclude_if=_is_none,
        ),
    ] = None
    discovered_column: Annotated[
        Literal["conflicting", "cluster"] | None,
        Field(description="Its column that, with the class, makes the groups; none: conflicting.", exclude_if=_is_none),
    ] = None
    pool: Annotated[
        PoolSettings | None,
        Field(
            description="Images set aside first, which a pretrained backbone saw; none: the set is all the user's.",
            exclude_if=_is_none,
        ),
    ] = None
    split: Annotated[
        SplitSettings, Field(description="Test and validation share where the makers gave no parts; long tail.")
    ] = SplitSettings()

    @model_validator(mode="after")
    def _only_what_the_reader_uses(self) -> Self:
        """A setting that changes nothing is refused, not passed over."""
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if name in settings_of_reader(self.reader) or value == field.default:
                continue
            if isinstance(value, str) and holds_secret(value):  # refused with the run, without repeating it
                continue
            readers = ", ".join(reader for reader, used in _USED.items() if name in used)
            raise ValueError(
                f"{name} is not used by the reader {self.reader}, only by {readers}; leave dataset.{name} out."
            )
        if self.discovered_column is not None and self.discovered is None:
            raise ValueError("discovered_column is a column of dataset.discovered; name that table, or leave it out.")
        return self

    @model_serializer(mode="wrap")
    def _without_empty_classes(self, settings_of: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A recipe without `classes` is the one that runs had before the setting was there."""
        settings: dict[str, Any] = settings_of(self)
        if not settings.get("classes"):
            settings.pop("classes", None)
        if isinstance(settings.get("split"), dict) and settings["split"].get("validation_each") is None:
            settings["split"].pop("validation_each", None)
        return settings


class PretrainedOn(Section):
    """What a pretrained backbone saw. Who says so gets the arms that use the backbone without drawing from it."""

    what: Annotated[str, Field(min_length=1, description="In words, for cards and reports, e.g. ImageNet-1k, 64x64.")]
    dataset: Annotated[
        DatasetConfig | None,
        Field(description="Its images, where they are at hand: test images among them are refused; none: not checked."),
    ] = None


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
        """What decides its images beside its files, whatever place they lie in; what is at its default is left out."""
        return differing(self, exclude={"path", "sha256", "revision", "download", "upsampler"})


class UpsamplerConfig(StageConfig):
    """The second stage of a two-stage backbone."""

    sampler: Annotated[UpsamplerSettings, Field(description="How it is drawn.")] = UpsamplerSettings()


class AdapterConfig(Section):
    """LoRA or a textual inversion of a text-to-image model."""

    path: Annotated[str, Field(description="Its file, or a folder as diffusers, peft or minority adapt write one.")]
    strength: Annotated[float, Field(description="By which the stored scale of LoRA is multiplied.")] = 1.0
    token: Annotated[
        str | None, Field(min_length=1, description="What prompts call a textual inversion; none: as its file says.")
    ] = None


def _adapter(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


_Adapter = Annotated[AdapterConfig, BeforeValidator(_adapter, json_schema_input_type=AdapterConfig | str)]


class BackboneConfig(StageConfig):
    """The pretrained diffusion model, in one stage or in two. A YAML file may hold the whole section."""

    pretrained_on: Annotated[
        PretrainedOn | None,
        Field(description="What it saw beyond the training images; none: nothing, or it is not known."),
    ] = None
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
    embedded_guidance: Annotated[
        float | None, Field(ge=0, description="Guidance scale told to FLUX.1-dev (none: 3.5) or LCM (8.5).")
    ] = None
    offload: Annotated[
        Offload | None,
        Field(description="Keep a text-to-image model's weights off the GPU while they rest: model, or sequential."),
    ] = None
    adapters: Annotated[
        tuple[_Adapter, ...], Field(description="LoRA and textual inversions of a text-to-image model.")
    ] = ()

    upsampler: Annotated[
        UpsamplerConfig | None, Field(description="Makes the images of `path`, which are drawn and guided, larger.")
    ] = None

    @property
    def decisive(self) -> dict[str, Any]:
        """What decides its images beside its files, in both stages."""
        # Adapters count by their checksums, which are in the backbone's; offloading changes no image.
        beside = ("pretrained_on", "adapters", "offload")
        settings = {key: value for key, value in super().decisive.items() if key not in beside}
        return settings | ({} if self.upsampler is None else {"upsampler": self.upsampler.decisive})

    @model_serializer(mode="wrap")
    def _without_defaults_of_text(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What came later is shown where it is set, so that others' recipes stay as they were."""
        content: dict[str, Any] = serialise(self)
        defaults: dict[str, Any] = {"pretrained_on": None, "prompts": None, "size": None, "fit": False}
        defaults |= {"distilled": None, "embedded_guidance": None, "adapters": [], "offload": None}
        return {key: value for key, value in content.items() if key not in defaults or value != defaults[key]}


def _backbone(value: Any) -> Any:
    """The backbone section, whether it was given as keys and values, as a YAML file, or as a path alone."""
    if not isinstance(value, str):
        return value
    return read_yaml_section(value) if value.endswith((".yaml", ".yml")) else {"path": value}


def read_yaml_section(path: str) -> dict[str, Any]:
    """The backbone section of a config in a file of its own; texts are what was written, quoted or not.

    Raises:
        ValueError: Where the file is missing, is no YAML, or holds no keys and values.
    """
    try:
        content = load_yaml(project_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as YAML ({str(error).splitlines()[0]}); look at the file.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold keys and values, e.g. `path: backbones/digits`; got {plain(content)!r}.")
    section: dict[str, Any] = as_declared(under_new_names(content, below="backbone"), BackboneConfig)
    return section


#: A backbone section in any of its forms.
Backbone = Annotated[BackboneConfig, BeforeValidator(_backbone, json_schema_input_type=BackboneConfig | str)]


def _sampler(value: Any) -> Any:
    """Sampler settings: keys and values, a sampler's name, or a name with settings that differ from the sampler's."""
    given = {"name": value} if isinstance(value, str) else value
    if not isinstance(given, dict) or "name" not in given:
        return given
    settings = {key: setting for key, setting in given.items() if key != "name"}
    return _over(named_sampler(str(given["name"])).to_dict(), settings)


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Settings with others over them, group by group."""
    merged = {}
    for key, value in (below | above).items():
        both = isinstance(below.get(key), dict) and isinstance(value, dict)
        merged[key] = _over(below[key], value) if both else value
    return merged


def _shown_sampler(value: SamplerSettings, settings_of: SerializerFunctionWrapHandler) -> dict[str, Any]:
    return without_absent_methods(settings_of(value))


def _shown_calibration(value: CalibrationSettings, settings_of: SerializerFunctionWrapHandler) -> dict[str, Any]:
    settings: dict[str, Any] = settings_of(value)
    return settings | {"space": without_empty_grids(settings["space"])}


#: How samples are drawn, in any of its forms.
Sampler = Annotated[
    SamplerSettings,
    BeforeValidator(_sampler, json_schema_input_type=SamplerSettings | str | dict[str, Any]),
    WrapSerializer(_shown_sampler),
]
#: How sampler settings are searched.
Calibration = Annotated[CalibrationSettings, WrapSerializer(_shown_calibration)]


class PlanConfig(Section):
    """How many images are drawn for whom."""

    quota: Annotated[
        int | None, Field(ge=1, description="Images a group, real and synthetic; none: as many as the commonest has.")
    ] = None
    expected_yield: Annotated[
        float, Field(gt=0, le=1, description="Share of candidates expected to be kept in the first round.")
    ] = 0.3
    max_rounds: Annotated[int, Field(ge=1, description="Rounds of drawing before quotas are given up.")] = 4
    pilot: Annotated[
        bool,
        Field(
            description="Whether the first round draws no more than is wanted, and the run ends where nothing is kept.",
            exclude_if=_is_false,
        ),
    ] = False
    candidates_per_image: Annotated[
        float, Field(ge=1, description="Candidate budget: at most so many a missing image.")
    ] = 8.0
    unit_size: Annotated[int, Field(ge=1, description="Samples a work unit: the grain of retry and resume.")] = 64
    baseline: Annotated[bool, Field(description="Also draw plain ancestral samples, for comparison only.")] = True
    groups: Annotated[
        Literal["observed", "all"] | tuple[str, ...],
        Field(
            description="Groups to fill: those with real images, all combinations of label and attributes, or a list.",
            exclude_if=_is_observed,  # so that runs without it stay as they were, to the byte
        ),
    ] = "observed"
    gate: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Least share of the first samples that show what was asked for, where few images are real.",
            exclude_if=_is_half,
        ),
    ] = 0.5


class PublishConfig(Section):
    """What the published dataset holds."""

    real: Annotated[bool, Field(description="Real training images beside the synthetic ones.")] = True
    samples_per_shard: Annotated[int, Field(ge=1, description="Images a tar.")] = 1000
    review: Annotated[
        bool,
        # So that what runs without it publish stays as it was.
        Field(
            description="Whether a deployed run waits, before it publishes, until somebody has approved its images.",
            exclude_if=_is_false,
        ),
    ] = False
    provenance: Annotated[
        bool,
        Field(
            description="Whether synthetic PNGs say so themselves, and synthetic rows name backbone and recipe.",
            exclude_if=_is_false,
        ),
    ] = False


class ArmsConfig(Section):
    """The training recipes that are compared, and the budget that every one of them gets."""

    arms: Annotated[
        tuple[str, ...] | None,
        Field(min_length=1, description="Names of arms, e.g. real, dfr, real+minority; none: all there are."),
    ] = None
    policies: Annotated[
        tuple[Policy, ...],
        Field(description="Other choices among the run's candidates that get arms too, e.g. clean, consistent."),
    ] = ()
    seeds: Annotated[int, Field(ge=0, description="Tested classifiers an arm; 0 trains none.")] = 5
    budget: DownstreamSettings = DownstreamSettings()
    reading: Annotated[
        ReadingSettings,
        Field(description="How a backbone with pretrained_on reads images for the arms that draw nothing."),
    ] = ReadingSettings()


class TextModelConfig(Section):
    """A small text-to-image model, trained on captions that are made of the groups of a set."""

    prompts: Annotated[PromptsConfig, Field(description="The captions of every group; a step takes one by chance.")]
    words: Annotated[
        tuple[str, ...], Field(description="Words beside those of the captions that the tokenizer has as one token.")
    ] = ()
    model: Annotated[TextModelSettings, Field(description="How it is built and trained.")] = TextModelSettings()
    quality: Annotated[PromptQualitySettings, Field(description="How the result is evaluated for its model card.")] = (
        PromptQualitySettings()
    )


class BackboneArchitecture(Section):
    """A diffusers UNet2DModel: the arguments that are not the dataset's."""

    block_out_channels: Annotated[
        tuple[int, ...], Field(description="Channels of each stage, from the image's size down.")
    ] = (32, 64)
    layers_per_block: Annotated[int, Field(ge=1, description="Residual blocks a stage.")] = 1
    down_block_types: Annotated[
        tuple[str, ...], Field(description="A diffusers block for each stage on the way down; Attn... has attention.")
    ] = ("DownBlock2D", "AttnDownBlock2D")
    up_block_types: Annotated[tuple[str, ...], Field(description="The same for the way up, in the opposite order.")] = (
        "AttnUpBlock2D",
        "UpBlock2D",
    )
    attention_head_dim: Annotated[int, Field(ge=1, description="Channels of an attention head.")] = 16
    norm_num_groups: Annotated[
        int, Field(ge=1, description="Groups of group normalisation; divides the channels of every stage.")
    ] = 8
    dropout: Annotated[float, Field(ge=0, lt=1, description="Share of activations that training leaves out.")] = 0.15
