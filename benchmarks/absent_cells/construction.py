"""What a set with absent cells is, and one draw of it: images, backbone and samples.

Shapes: N images of H x W RGB; the backbone sees them as H/2 x W/2 with 12 channels (pixel-unshuffled).
"""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from diffusers import UNet2DModel
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from minority.backbones import Backbone, UNetSettings, load_folder, save_folder
from minority.backbones.factors import Factor, Factors, with_factors
from minority.classifier import ClassifierSettings
from minority.diffusion.schedule import NoiseSchedule
from minority.guidance.composed_conditions import ComposedConditions
from minority.sampling.draw import draw
from minority.sampling.edit import edit_images
from minority.sampling.settings import SamplerSettings
from minority.training import TrainingSettings, train_denoiser

#: Of every classifier that is compared; neither its rate nor its decay was tuned.
BUDGET = ClassifierSettings(
    steps=400, width=8, weight_decay=0.03, max_shift=1 / 16, max_rotation=0.0, flip=True, learning_rate=3e-3
)


@dataclass(frozen=True, eq=False)
class Cells:
    """Images with label and attribute (0 or 1); `cell` = 2 label + attribute."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    attributes: NDArray[np.int64]

    @property
    def cell(self) -> NDArray[np.int64]:
        """(N,) cells."""
        return 2 * self.labels + self.attributes

    @property
    def values(self) -> NDArray[np.int64]:
        """(N, 2) label and attribute."""
        return np.stack([self.labels, self.attributes], axis=1)

    def subset(self, chosen: NDArray[np.int64] | NDArray[np.bool_]) -> "Cells":
        """Some of them."""
        return Cells(self.images[chosen], self.labels[chosen], self.attributes[chosen])

    def joined(self, other: "Cells") -> "Cells":
        """Both."""
        return Cells(
            np.concatenate([self.images, other.images]),
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.attributes, other.attributes]),
        )


@dataclass(frozen=True, kw_only=True)
class Construction:
    """What is the same in all draws of a set.

    Attributes:
        attribute: Its name and its two values.
        labels: Names of the classes.
        absent: (label, attribute) of the cells that have k real images.
        side: Pixels of an image's height and width.
        steps: Of the backbone of k = 0.
        class_balance: Of the training of that backbone.
        budget: Of every classifier that is compared.
        judges: Of the classifiers that evaluate samples, fitted on the training images of the draw.
        samples: Drawn for each absent cell and generation seed.
        more_real: Real images a cell that the best that could be hoped for adds.
        recipes: Recipes on real images that this set has besides the others.
    """

    attribute: tuple[str, str, str]
    labels: tuple[str, ...]
    absent: tuple[tuple[int, int], ...]
    side: int
    steps: int
    class_balance: float
    budget: ClassifierSettings
    judges: ClassifierSettings
    samples: int
    more_real: int
    recipes: tuple[str, ...] = ()

    @property
    def cells(self) -> range:
        """All cells."""
        return range(2 * len(self.labels))

    @property
    def absent_cells(self) -> list[int]:
        """Those that have k real images."""
        return [2 * label + attribute for label, attribute in self.absent]

    @property
    def ceiling(self) -> str:
        """The recipe that has real images of the absent cells."""
        return f"{self.more_real} real images a cell"

    @property
    def factors(self) -> Factors:
        """The conditions of the backbone."""
        name, *values = self.attribute
        labels = tuple(map(str, range(len(self.labels))))
        return Factors((Factor("label", labels), Factor(name, tuple(values))))

    def is_absent(self, cells: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(N,) whether each cell is an absent one."""
        return np.isin(cells, self.absent_cells)


class Source(Protocol):
    """All images of a set, of which every draw takes its own."""

    @property
    def construction(self) -> Construction:
        """What is the same in all draws."""
        ...

    def draw(self, seed: int, folder: Path) -> "Draw":
        """One draw.

        Args:
            seed: Of the draw.
            folder: Where its backbones and samples lie.
        """
        ...

    def oracle(self) -> Cells:
        """Images of all cells, of which classifiers are fitted that measure samples and choose nothing."""
        ...


@dataclass(frozen=True, eq=False)
class Draw:
    """One draw: its own images, backbone and samples. The same for every k but for k images in each absent cell.

    Attributes:
        construction: What is the same in all draws.
        seed: Of the draw.
        folder: Where its backbones and samples lie.
    """

    construction: Construction
    seed: int
    folder: Path

    @abstractmethod
    def train(self, k: int) -> Cells:
        """Training images, with k real images in each absent cell."""

    @abstractmethod
    def validation(self) -> Cells:
        """A few images of every cell, absent ones too."""

    @abstractmethod
    def ceiling(self) -> Cells:
        """`construction.more_real` real images of each absent cell."""

    @abstractmethod
    def test(self) -> Cells:
        """Test images of every cell."""

    def backbone(self, k: int) -> Backbone:
        """Trained on the training images of k alone; for k above 0 that of k = 0, trained on for a quarter."""
        path = self.folder / f"backbone-{k}"
        if not path.is_dir():
            unet, factors = self._network(k), self.construction.factors
            settings = UNetSettings(
                num_classes=len(self.construction.labels), prediction_type="v_prediction", factors=factors
            )
            save_folder(path, unet, schedule=NoiseSchedule.cosine(1000), settings=settings)
        return load_folder(path)

    def _network(self, k: int) -> UNet2DModel:
        weights = self.folder / f"weights-{k}.safetensors"
        unet = self._new_network()
        if weights.is_file():
            unet.load_state_dict(load_file(weights))
            return unet.eval()
        if k > 0:
            unet = self._network(0)
        train = self.train(k)
        images, rows = unshuffled(train.images), self.construction.factors.rows(train.values)
        both = np.concatenate([images, unshuffled(train.images[:, :, ::-1])])
        settings = TrainingSettings(
            steps=self.construction.steps // (1 if k == 0 else 4),
            batch_size=64,
            learning_rate=1e-3 if k == 0 else 3e-4,
            label_dropout=0.1,
            condition_dropout=(0.1,),
            class_balance=self.construction.class_balance if k == 0 else 0.5,
            prediction="v_prediction",
            augmentation=None,
            seed=self.seed,
        )
        train_denoiser(
            unet,
            both,
            np.concatenate([rows, rows]),
            schedule=NoiseSchedule.cosine(1000),
            settings=settings,
            checkpoint=self.folder / f"training-{k}.pt",
        )
        save_file(unet.state_dict(), weights.with_suffix(".part"))
        weights.with_suffix(".part").replace(weights)
        (self.folder / f"training-{k}.pt").unlink()
        return unet

    def _new_network(self) -> UNet2DModel:
        torch.manual_seed(self.seed)
        unet = UNet2DModel(
            sample_size=self.construction.side // 2,
            in_channels=12,
            out_channels=12,
            num_class_embeds=self.construction.factors.num_rows,
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=16,
            norm_num_groups=8,
            dropout=0.1,
        )
        return with_factors(unet, self.construction.factors)

    def samples(self, k: int, *, generation: int, edited: float | None = None) -> Cells:
        """Samples of each absent cell, drawn from noise, or real images of their class moved there."""
        kind = "drawn" if edited is None else f"edited-{edited:g}"
        path = self.folder / f"{kind}-{k}-{generation}.npz"
        asked = np.repeat(np.array(self.construction.absent), self.construction.samples, axis=0)
        if not path.is_file():
            rows, seed = self.construction.factors.rows(asked).tolist(), 1000 * self.seed + generation
            settings = SamplerSettings(steps=30, variance="fixed_small").guided(ComposedConditions(joint=2.0))
            if edited is None:
                images = draw(
                    self.backbone(k), seed=seed, indices=range(len(rows)), labels=rows, settings=settings
                ).images
            else:
                train, rng = self.train(k), np.random.default_rng([self.seed, generation, 3])
                chosen = [
                    rng.choice(np.flatnonzero((train.labels == label) & (train.attributes != attribute)))
                    for label, attribute in asked
                ]
                images, _ = edit_images(
                    self.backbone(k),
                    unshuffled(train.images[chosen]),
                    seed=seed,
                    indices=range(len(rows)),
                    labels=rows,
                    settings=settings,
                    fraction=edited,
                )
            np.savez_compressed(path.with_suffix(".part.npz"), images=shuffled(images))
            path.with_suffix(".part.npz").replace(path)
        return Cells(np.load(path, allow_pickle=False)["images"], asked[:, 0], asked[:, 1])


def unshuffled(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, H, W, C) -> (N, H / 2, W / 2, 4 C)."""
    count, height, width, channels = images.shape
    blocks = images.reshape(count, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    return np.ascontiguousarray(blocks.reshape(count, height // 2, width // 2, 4 * channels))


def shuffled(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What `unshuffled` was given."""
    count, height, width, channels = images.shape
    blocks = images.reshape(count, height, width, 2, 2, channels // 4).transpose(0, 1, 3, 2, 4, 5)
    return np.ascontiguousarray(blocks.reshape(count, 2 * height, 2 * width, channels // 4))
