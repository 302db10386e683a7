"""The constructions of the study that need a pretrained backbone: digits, Fashion-MNIST, faces."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.draws.construction import BACKBONE, DRAWN, REAL, Say
from benchmarks.draws.pools import PoolConstruction
from datasets.readers.digits import read_digits
from datasets.readers.fashion_mnist import read_fashion_mnist
from datasets.readers.imageset import ImageSet
from datasets.splits.stratified import SplitSettings
from minority.downstream.arms import BACKBONE_ARMS, REAL_ARMS, Arm, backbone_arms
from minority.downstream.data import DownstreamData
from minority.downstream.settings import DownstreamSettings, Jitter, NetworkSettings
from minority.evaluation.backbone_reading import ReadingSettings
from minority.sampling.diffusion_classifier import ZeroShotSettings
from minority.sampling.settings import SamplerSettings
from minority.training import TrainingSettings
from minority.training.augmentation import AffineAugmentation


def digits_pool(*, largest: int | None = None) -> PoolConstruction:
    """Half of the 8x8 digits is the pool; the user holds 35 down to 3 scans a class, or `largest` down to 1."""
    held = "35 down to 3" if largest is None else f"{largest} down to 1"
    return PoolConstruction(
        name="digits-pool" if largest is None else f"digits-pool-{largest}",
        says=f"Digits, 8x8: the backbone saw 900 labelled scans of a pool, the user holds {held} a class of others.",
        largest=largest,
        images=read_digits(),
        pool=0.5,
        split=SplitSettings(test_fraction=0.5, validation_each=10, imbalance=12 if largest is None else largest),
        architecture={
            "block_out_channels": (16, 32),
            "layers_per_block": 1,
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
            "attention_head_dim": 16,
            "norm_num_groups": 8,
            "dropout": 0.1,
        },
        training=TrainingSettings(
            steps=2000,
            batch_size=64,
            weight_decay=0.05,
            ema_decay=0.998,
            label_dropout=0.1,
            checkpoint_every=1000,
            augmentation=AffineAugmentation(rotation=6, translation=0.04, scaling=0.06, shear=0.06),
        ),
        sampler=SamplerSettings(steps=50),
        samples=100,
        seeds=3,
        reading=ReadingSettings(copies=6, zero_shot=ZeroShotSettings(levels=10)),
        settings=DownstreamSettings(
            network=NetworkSettings(width=16),
            steps=300,
            learning_rates=(3e-3,),
            trials=2,
            tuning_seeds=1,
            chosen_by="balanced",
        ),
    )


def fashion_pool(data: Path, *, largest: int) -> PoolConstruction:
    """4,000 pictures a class are the pool; the user holds `largest` down to 3 a class. 16x16 grey."""
    return PoolConstruction(
        name="fashion-pool" if largest == 300 else f"fashion-pool-{largest}",
        says=(
            f"Fashion-MNIST, 16x16 grey: the backbone saw 40,000 labelled pictures, the user holds {largest} down to 3 "
            "a class of others."
        ),
        images=_shrunk(read_fashion_mnist(data / "fashion_mnist"), side=16),
        pool=4 / 7,
        split=SplitSettings(test_fraction=0.3, validation_each=20, imbalance=largest / 3),
        largest=largest,
        test_each=150,
        architecture={
            "block_out_channels": (24, 48, 64),
            "layers_per_block": 1,
            "down_block_types": ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
            "attention_head_dim": 16,
            "norm_num_groups": 8,
            "dropout": 0.0,
        },
        training=TrainingSettings(
            steps=2500,
            batch_size=64,
            ema_decay=0.998,
            label_dropout=0.1,
            prediction="v_prediction",
            checkpoint_every=500,
            augmentation=AffineAugmentation(rotation=0, translation=0.03, scaling=0.0, shear=0.0),
        ),
        sampler=SamplerSettings(steps=30),
        samples=300 if largest == 300 else 100,
        settings=DownstreamSettings(
            network=NetworkSettings(width=16),
            steps=400,
            trials=2,
            tuning_seeds=1,
            learning_rates=(3e-3,),
            chosen_by="balanced",
            jitter=Jitter(shift=0.06, rotation=0.0, flip=True),
        ),
        reading=ReadingSettings(copies=4, zero_shot=ZeroShotSettings(levels=8)),
        seeds=3,
    )


def celeba_blond_male(data: Path) -> "CelebaBlondMale":
    """Blond or not by man or woman, with the images and a backbone of one's own."""
    return CelebaBlondMale(folder=data / "celeba")


@dataclass(frozen=True, eq=False, kw_only=True)
class CelebaBlondMale:
    """The published benchmark of spurious correlation: hair colour by sex, blond men being rare.

    It is ready and was never run here: the images are not free to ship, and it wants a GPU. Its trainings are the
    product's: `minority augment celeba` and `minority downstream celeba`.

    Attributes:
        folder: Where img_align_celeba/ and its two lists lie.
        name: As it is asked for.
        says: What is compared.
        settings: Of no training here.
        seeds: Likewise.
        published: Worst-group accuracies of the papers, with a ResNet-50 pretrained on ImageNet.
    """

    folder: Path
    name: str = "celeba-blond-male"
    says: str = "CelebA, Blond_Hair by Male at 64x64: the rarest group is blond men. Worst group, %."
    settings: DownstreamSettings = field(default_factory=DownstreamSettings)
    seeds: int = 5
    published: Mapping[str, str] = field(
        default_factory=lambda: {
            "real": "47.2 (ERM, Liu et al. 2021, table 1)",
            "group-dro": "88.9 (Liu et al. 2021, table 1)",
            "dfr": "88.3 +/- 1.1 (Kirichenko et al. 2023, table 2)",
            "JTT": "81.1 (Liu et al. 2021, table 1)",
        }
    )

    def missing(self) -> str | None:
        """What to bring, and the commands."""
        return (
            f"bring CelebA to {self.folder} and an ADM checkpoint to checkpoints/celeba64.pt, then run `minority "
            "augment celeba` and `minority downstream celeba`, once a split seed."
        )

    def arms(self) -> Sequence[Arm]:
        """What the product compares there."""
        return (*REAL_ARMS, *backbone_arms(["plain"], conditional=False))

    def families(self) -> Mapping[str, Sequence[str]]:
        """As of every construction."""
        return {
            REAL: [arm.name for arm in REAL_ARMS],
            BACKBONE: [arm.name for arm in BACKBONE_ARMS],
            DRAWN: [arm.name for arm in self.arms() if arm.is_generative],
        }

    def make(self, draw: int, folder: Path, *, say: Say) -> DownstreamData:
        """Never called: `missing` says why."""
        raise ValueError(self.missing())


def _shrunk(images: ImageSet, *, side: int) -> ImageSet:
    """The same grey pictures, brought to side x side pixels by areas."""

    def load(index: int) -> NDArray[np.uint8]:
        picture = Image.fromarray(images.image(index)[:, :, 0])
        return np.asarray(picture.resize((side, side), Image.Resampling.BOX), dtype=np.uint8)[:, :, np.newaxis]

    return replace(images, image_shape=(side, side, 1), load=load, parts=None)
