"""The config tree of a run: what Python, prefect.yaml, the command line and Prefect's form all fill in.

Knobs of the libraries are declared there, beside the code that obeys them; this tree only puts them together, with the
sections of config_sections.py. Unknown keys are errors.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, model_validator

from datasets.storage.store import Store
from datasets.storage.store_url import require_no_secret
from minority.calibration.search import CalibrationSettings
from minority.classifier import ClassifierSettings
from minority.discovery.settings import DiscoverySettings
from minority.evaluation.backbone_quality import QualitySettings
from minority.evaluation.prompt_quality import PromptQualitySettings
from minority.features import ExtractorSettings
from minority.sampling.draw import SamplerSettings, ScoreSettings
from minority.sampling.edit import EditSettings
from minority.selection.settings import SelectionSettings
from minority.training import TrainingSettings
from minority.training.text.adaptation_settings import AdaptationSettings
from minority.training.watch import WatchSettings
from tasks.config.limits import require_sane_numbers
from tasks.config.recipe import differing, recipe_of
from tasks.config.renamed import under_former_names, under_new_names
from tasks.config.sections import (
    ArmsConfig,
    Backbone,
    BackboneArchitecture,
    Calibration,
    DatasetConfig,
    PlanConfig,
    PublishConfig,
    Sampler,
    Section,
    TextModelConfig,
)
from tasks.execution.capacity import Workers

#: Raise it when a change of the code changes images or verdicts, so that no run mixes old and new ones.
RECIPE_VERSION = 2

Device = Annotated[Literal["auto", "cpu", "cuda"], Field(description="auto: a GPU where there is one.")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


class _Run(Section):
    """What a flow is given. It is kept in Prefect's database, and goes into manifests and model cards."""

    @model_validator(mode="before")
    @classmethod
    def _has_names_of_now(cls, values: Any) -> Any:
        return under_new_names(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _has_sane_numbers(self) -> Self:
        require_sane_numbers(self.model_dump())
        return self

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


class AugmentConfig(_Run):
    """One augmentation run."""

    name: Annotated[Name, Field(description="The dataset's name in the store.")]
    dataset: DatasetConfig
    backbone: Backbone
    sampler: Annotated[
        Sampler, Field(description="How samples are drawn: settings, or a name of `minority sample --list`.")
    ] = SamplerSettings()
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
    device: Device = "auto"
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
    def _recognised_is_asked(self) -> Self:
        if self.selection.policy == "recognised" and self.scores.zero_shot is None:
            raise ValueError(
                "selection.policy recognised goes by the backbone's zero-shot classifier; set scores.zero_shot, too, "
                "e.g. --set 'scores.zero_shot={}'."
            )
        return self

    @model_validator(mode="after")
    def _edited_samples_have_one_start(self) -> Self:
        starts = [
            method.key for method in self.sampler.guidance if method.stage == "start" or method.particle_group > 1
        ]
        if self.edit is not None and starts:
            raise ValueError(f"edit starts every sample from an image of its own; leave sampler.{starts[0]} out.")
        return self

    def recipe(self, *, backbone_identity: str, real_digest: str) -> str:
        """12 hex digits over everything that decides which images are published.

        Of the settings those count that differ from their defaults, so that a setting which is added later, at its
        default, renames no run.

        Args:
            backbone_identity: `Backbone.identity` of the backbone that is used.
            real_digest: Digest of the training and validation images.
        """
        beside_the_images = {"store", "run_id", "device", "workers", "units_a_task", "downstream", "backbone"}
        return _recipe(self, beside_the_images, backbone_identity=backbone_identity, real_digest=real_digest)


class DownstreamConfig(_Run):
    """One comparison of arms on a published run."""

    name: Annotated[Name, Field(description="The dataset's name in the store.")]
    manifest: Annotated[
        str | None, Field(description="File name or URL of a published run's manifest; none: the dataset's latest.")
    ] = None
    downstream: ArmsConfig = ArmsConfig()
    store: Annotated[str, Field(min_length=1, description="Folder or fsspec URL that holds the dataset.")] = "runs"
    device: Device = "auto"
    workers: Workers = Workers()


class DiscoverConfig(_Run):
    """One search for hidden groups. Fits nothing on validation and test images."""

    name: Annotated[Name, Field(description="The dataset's name in the store.")]
    dataset: DatasetConfig
    backbone: Annotated[
        Backbone | None, Field(description="Draws the plain samples of the method amplifier; the others need none.")
    ] = None
    discovery: DiscoverySettings = DiscoverySettings()
    store: Annotated[str, Field(min_length=1, description="Folder or fsspec URL that receives the result.")] = "runs"
    device: Device = "auto"
    workers: Workers = Workers()

    @model_validator(mode="after")
    def _amplifier_has_a_backbone(self) -> Self:
        if self.discovery.method == "amplifier" and self.backbone is None:
            raise ValueError("discovery.method amplifier draws plain samples; name a backbone, or choose cross_fitted.")
        return self

    def recipe(self, *, backbone_identity: str | None, real_digest: str) -> str:
        """12 hex digits over everything that decides the result, as in `AugmentConfig.recipe`.

        Args:
            backbone_identity: `Backbone.identity` of the backbone that is drawn from; None where none is.
            real_digest: Digest of the training and validation images.
        """
        settings = differing(self, exclude={"name", "store", "device", "workers", "backbone"})
        return recipe_of({"settings": settings, "backbone": backbone_identity, "real_digest": real_digest})


class CalibrateConfig(_Run):
    """One search for sampler settings. Uses training and validation images, never test images."""

    name: Annotated[Name, Field(description="The preset's name.")]
    dataset: DatasetConfig
    backbone: Backbone
    sampler: Annotated[Sampler, Field(description="In use now: compared with, and kept where not searched.")] = (
        SamplerSettings()
    )
    features: ExtractorSettings = ExtractorSettings()
    selection: SelectionSettings = SelectionSettings()
    labeller: ClassifierSettings = ClassifierSettings()
    calibration: Calibration = CalibrationSettings()
    unit_size: Annotated[int, Field(ge=1, description="Samples a task: the grain of retry and resume.")] = 256
    seed: Annotated[int, Field(ge=0, lt=2**63, description="Decides all noise, and the draw from the space.")] = 0
    store: Annotated[str, Field(min_length=1, description="Folder or fsspec URL that receives the result.")] = "runs"
    device: Device = "auto"
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

    def recipe(self, *, backbone_identity: str, real_digest: str) -> str:
        """12 hex digits over everything that decides the result, as in `AugmentConfig.recipe`.

        Args:
            backbone_identity: `Backbone.identity` of the backbone that is used.
            real_digest: Digest of the training and validation images.
        """
        beside_the_result = {"store", "device", "workers", "backbone"}
        return _recipe(self, beside_the_result, backbone_identity=backbone_identity, real_digest=real_digest)


def _recipe(
    config: AugmentConfig | CalibrateConfig, indecisive: set[str], *, backbone_identity: str, real_digest: str
) -> str:
    return recipe_of(
        {
            "settings": under_former_names(differing(config, exclude=indecisive)),
            "backbone": [backbone_identity, under_former_names(config.backbone.decisive, below="backbone")],
            "real_digest": real_digest,
            "version": RECIPE_VERSION,
        }
    )


def _is_empty(value: object) -> bool:
    return value == ()


class TrainBackboneConfig(_Run):
    """One training run of a backbone."""

    name: Annotated[Name, Field(description="The backbone's name.")]
    dataset: DatasetConfig
    architecture: BackboneArchitecture = BackboneArchitecture()
    conditional: Annotated[
        bool, Field(description="Whether the network is told the label; where not, labels only balance the classes.")
    ] = True
    conditions: Annotated[
        tuple[str, ...],
        Field(
            description="Label and attributes as separate conditions, e.g. [label, sex]; none: the label alone.",
            exclude_if=_is_empty,
        ),
    ] = ()
    schedule: Annotated[Literal["linear", "cosine"], Field(description="Noise schedule.")] = "cosine"
    timesteps: Annotated[int, Field(ge=2, description="Trained timesteps.")] = 1000
    training: TrainingSettings = TrainingSettings()
    watch: Annotated[
        WatchSettings | None, Field(description="Samples, bits/dim and FID on the way, e.g. {every: 500}; none: none.")
    ] = None
    quality: Annotated[
        QualitySettings | None, Field(description="How the result is evaluated for its model card; none: it is not.")
    ] = QualitySettings()
    published: Annotated[
        str | None, Field(description="Published figures to compare with and their source, in words for the card.")
    ] = None
    text: Annotated[
        TextModelConfig | None,
        # So that the commands on other cards stay as they are.
        Field(
            description="A small text-to-image model instead of a U-Net told labels.",
            exclude_if=lambda text: text is None,
        ),
    ] = None
    out: Annotated[str, Field(min_length=1, description="Folder that receives the trained backbone.")]
    device: Device = "auto"
    processes: Annotated[
        int, Field(ge=1, description="GPUs that share every batch, or processes where there are none (accelerate).")
    ] = 1

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.text is not None:
            self._require_text_alone()
        training = self.training
        parts = training.accumulate * self.processes
        if training.batch_size % parts:
            raise ValueError(
                f"training.batch_size must be a multiple of training.accumulate x processes = {parts}, got "
                f"{training.batch_size}."
            )
        if training.label_dropout > 0 and not self.conditional:
            raise ValueError("training.label_dropout needs labels to leave out; set it to 0, or conditional to true.")
        if not self.conditions:
            return self
        if not self.conditional or self.conditions[0] != "label" or len(self.conditions) < 2:
            raise ValueError(
                f"conditions must be the label first and then attributes, e.g. [label, sex], of a network that is told "
                f"them (conditional: true), got {list(self.conditions)}."
            )
        if training.label_dropout == 0:
            raise ValueError(
                "conditions need training.label_dropout above 0, the share of images of which nothing is told (0.1 is "
                "usual): what no condition means has to be learnt."
            )
        return self

    def _require_text_alone(self) -> None:
        """Refuse settings that a text-to-image model does not look at."""
        for name in (
            "architecture",
            "conditional",
            "schedule",
            "timesteps",
            "training",
            "watch",
            "quality",
            "processes",
        ):
            value = getattr(self, name)
            if value != type(self).model_fields[name].default and not (name == "quality" and value is None):
                raise ValueError(f"{name} has no effect on a text-to-image model, which text describes; leave it out.")


Run = TypeVar("Run", AugmentConfig, CalibrateConfig, DiscoverConfig, DownstreamConfig)


class AdaptConfig(_Run):
    """One adaptation of a text-to-image model to a set's training split."""

    name: Annotated[Name, Field(description="The adapter's name.")]
    dataset: DatasetConfig
    backbone: Annotated[
        Backbone, Field(description="What is adapted. Its prompts are the captions; <words> of theirs are learned.")
    ]
    adaptation: Annotated[AdaptationSettings, Field(description="What is learned, and how.")] = AdaptationSettings()
    quality: Annotated[PromptQualitySettings, Field(description="How the result is evaluated for its card.")] = (
        PromptQualitySettings()
    )
    out: Annotated[str, Field(min_length=1, description="Folder that receives the adapter, for backbone.adapters.")]
    device: Device = "auto"

    @model_validator(mode="after")
    def _draws_by_prompts(self) -> Self:
        if self.backbone.prompts is None:
            raise ValueError("backbone.prompts is not set; they are the captions that the model is adapted by.")
        if self.backbone.upsampler is not None:
            raise ValueError("backbone.upsampler has no effect on an adaptation; leave it out.")
        if self.backbone.offload is not None:
            raise ValueError(
                "backbone.offload has no effect on an adaptation, whose weights are trained; leave it out."
            )
        return self


def with_resolved_store(config: Run) -> Run:
    """The same run with its store named so that workers with another current folder find it.

    Raises:
        ValueError: The store's URL is none.
    """
    return config.model_copy(update={"store": Store(config.store).root})
