"""Hidden groups: each class has an attribute that gives it away in 99 of 100 training images, and nobody says so.

Recipes on real images that need no attribute labels, with and without samples of a backbone of the same biased images,
plain ones and ones of self-guidance. Recipes that need the labels stand beside them, as what a label is worth. Test
images are uniform in the attribute, so that balanced accuracy is unbiased accuracy.

Shapes: N images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DModel

from benchmarks.draws.construction import DRAWN, REAL, Say
from benchmarks.draws.kept_files import load_images, save_images
from benchmarks.hidden_groups import CLASS_NAMES, SIDE, Construction, Part, draw_hidden_groups
from minority.backbones import Backbone, UNetSettings, load_backbone, save_folder
from minority.diffusion.schedule import NoiseSchedule
from minority.downstream.arms import Arm
from minority.downstream.combining import arm_named
from minority.downstream.data import DownstreamData, LabelledImages
from minority.downstream.settings import DownstreamSettings, Jitter, NetworkSettings
from minority.guidance.self_guidance import SelfGuidance
from minority.sampling.draw import draw as draw_samples
from minority.sampling.settings import SamplerSettings
from minority.training import TrainingSettings, train_denoiser

WITH_LABELS, PLAIN_TRAINING = "recipes that need attribute labels", "plain training"
WITHOUT_LABELS = (
    "real",
    "mixup",
    "randaugment",
    "statistics-mixing",
    "feature-mixing",
    "neighbour-oversampling",
    "lff",
    "inferred-groups+group-dro",
    "jtt",
    "loss-oversampling",
    "loss-oversampling+mixup",
    "loss-oversampling+randaugment",
    "loss-oversampling+statistics-mixing",
    "jtt+statistics-mixing",
)
BY_LABELS = ("attribute-adjustment", "attribute-adversary", "lisa")
SAMPLERS: Mapping[str, SamplerSettings] = {
    "plain": SamplerSettings(steps=30),
    "guided": SamplerSettings(steps=30, self_guidance=SelfGuidance(scale=3.0)),
}
GENERATIVE = tuple(
    f"{recipe}+{source}"
    for source in SAMPLERS
    for recipe in ("loss-oversampling", "loss-oversampling+statistics-mixing")
)


@dataclass(frozen=True, eq=False, kw_only=True)
class HiddenConstruction:
    """Coloured or marked Fashion-MNIST.

    Attributes:
        name: As it is asked for.
        says: In a sentence.
        kind: What gives the class away.
        folder: Where Fashion-MNIST lies.
        samples: Samples a class of every sampler; 0 trains no backbone, and compares recipes on real images alone.
        settings: The budget of every classifier.
        seeds: Tested trainings of every arm.
        training: Of the backbone.
    """

    name: str
    says: str
    kind: Construction
    folder: Path
    samples: int = 100
    settings: DownstreamSettings = field(
        default_factory=lambda: DownstreamSettings(
            network=NetworkSettings(width=8),
            steps=400,
            learning_rates=(3e-3,),
            weight_decays=(0.03, 0.3),
            trials=2,
            tuning_seeds=1,
            chosen_by="balanced",
            jitter=Jitter(rotation=0, flip=True),
        )
    )
    seeds: int = 2
    training: TrainingSettings = field(
        default_factory=lambda: TrainingSettings(
            steps=2000,
            batch_size=64,
            ema_decay=0.998,
            label_dropout=0.1,
            prediction="v_prediction",
            checkpoint_every=500,
        )
    )
    published: Mapping[str, str] = field(default_factory=dict)

    def missing(self) -> str | None:
        """Nothing: the images are there."""
        return None

    def arms(self) -> Sequence[Arm]:
        """Recipes on real images, those that need labels, and those with samples."""
        generative = GENERATIVE if self.samples else ()
        return [arm_named(name, sources=tuple(SAMPLERS)) for name in (*WITHOUT_LABELS, *BY_LABELS, *generative)]

    def families(self) -> Mapping[str, Sequence[str]]:
        """Without attribute labels: with samples, and without; and the others beside them."""
        return {
            REAL: WITHOUT_LABELS,
            PLAIN_TRAINING: ("real",),
            "oversampling by early loss": ("loss-oversampling",),
            WITH_LABELS: BY_LABELS,
            DRAWN: GENERATIVE if self.samples else (),
        }

    def make(self, draw: int, folder: Path, *, say: Say) -> DownstreamData:
        """Colour or mark, and draw; see `Construction.make`."""
        folder.mkdir(parents=True, exist_ok=True)
        drawn = draw_hidden_groups(self.folder, self.kind, draw=draw)
        data = DownstreamData(
            train=_labelled(drawn.train),
            validation=_labelled(drawn.validation),
            test=_labelled(drawn.test),
            class_names=CLASS_NAMES,
            group_names=CLASS_NAMES,
        )
        if not self.samples:
            return data
        backbone = self._backbone(draw, data.train, folder / "backbone", say=say)
        return replace(data, synthetic={name: self._drawn(name, draw, backbone, folder, say=say) for name in SAMPLERS})

    def _backbone(self, draw: int, train: LabelledImages, folder: Path, *, say: Say) -> Backbone:
        if not folder.is_dir():
            say("training a backbone on the biased images")
            with torch.random.fork_rng():
                torch.manual_seed(draw)
                unet = UNet2DModel(
                    sample_size=SIDE,
                    in_channels=3,
                    out_channels=3,
                    num_class_embeds=len(CLASS_NAMES) + 1,
                    block_out_channels=(24, 48, 64),
                    layers_per_block=1,
                    down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
                    up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
                    attention_head_dim=16,
                    norm_num_groups=8,
                )
            schedule = NoiseSchedule.cosine(1000)
            checkpoint = folder.with_name("backbone.checkpoint.pt")
            train_denoiser(
                unet,
                train.images,
                train.labels,
                schedule=schedule,
                settings=replace(self.training, seed=draw),
                checkpoint=checkpoint,
            )
            told = UNetSettings(num_classes=len(CLASS_NAMES), prediction_type=self.training.prediction)
            save_folder(folder, unet, schedule=schedule, settings=told)
            checkpoint.unlink(missing_ok=True)
        return load_backbone(folder)

    def _drawn(self, name: str, draw: int, backbone: Backbone, folder: Path, *, say: Say) -> LabelledImages:
        path, labels = folder / f"{name}.zip", np.repeat(np.arange(len(CLASS_NAMES)), self.samples)
        if not path.is_file():
            say(f"drawing {len(labels)} {name} samples")
            found = draw_samples(
                backbone, seed=draw, indices=range(len(labels)), labels=labels.tolist(), settings=SAMPLERS[name]
            )
            save_images(path, LabelledImages(found.images, labels, labels))
        return load_images(path)


def hidden(data: Path, kind: Construction, *, samples: int) -> HiddenConstruction:
    """The construction of a kind of attribute, with or without a backbone."""
    attribute = "a hue of its own" if kind == "colour" else "a bright mark of 3x3 pixels, or none"
    beside = "" if samples else " Recipes on real images alone."
    return HiddenConstruction(
        name=f"hidden-{kind}" if samples else f"hidden-{kind}-real",
        says=f"Fashion-MNIST, 16x16: each class has {attribute}, but for 10 of its 1,000 training images.{beside}",
        kind=kind,
        folder=data / "fashion_mnist",
        samples=samples,
    )


def _labelled(part: Part) -> LabelledImages:
    """Groups are classes: the attribute is for the recipes that ask for it."""
    return LabelledImages(part.images, part.labels, part.labels, part.attributes)
