"""Fashion-MNIST with a mark that some classes never have, or always: images, backbone and samples of one draw.

Three pairs of confusable garments are confounded with the mark (a bright 3x3 patch of any hue in a random corner):
T-shirt, pullover and sandal never have it, shirt, coat and sneaker always do. Their six other cells have k real images
each. Trouser, dress, bag and boot have both, half and half.

Shapes: N images of 16x16 RGB; the backbone sees them as 8x8 with 12 channels (pixel-unshuffled).
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DModel
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file

from datasets.readers.fashion_mnist import read_fashion_mnist
from minority.backbones import Backbone, UNetSettings, load_folder, save_folder
from minority.backbones.factors import Factor, Factors, with_factors
from minority.diffusion.schedule import NoiseSchedule
from minority.guidance.composed_conditions import ComposedConditions
from minority.sampling.draw import draw
from minority.sampling.edit import edit_images
from minority.sampling.settings import SamplerSettings
from minority.training import TrainingSettings, train_denoiser

CLASSES = 10
WITHOUT, WITH = (0, 2, 5), (6, 4, 7)  # T-shirt, pullover, sandal; shirt, coat, sneaker
#: The cells (class, mark) that have k real images.
ABSENT = tuple((label, 1) for label in WITHOUT) + tuple((label, 0) for label in WITH)
_SIZE = 16
_FACTORS = Factors((Factor("label", tuple(map(str, range(CLASSES)))), Factor("mark", ("absent", "present"))))


@dataclass(frozen=True, eq=False)
class Cells:
    """Images with label and mark; `cell` = 2 label + mark."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    marks: NDArray[np.int64]

    @property
    def cell(self) -> NDArray[np.int64]:
        """(N,) cells."""
        return 2 * self.labels + self.marks

    @property
    def values(self) -> NDArray[np.int64]:
        """(N, 2) label and mark."""
        return np.stack([self.labels, self.marks], axis=1)

    def subset(self, chosen: NDArray[np.generic]) -> "Cells":
        """Some of them."""
        return Cells(self.images[chosen], self.labels[chosen], self.marks[chosen])

    def joined(self, other: "Cells") -> "Cells":
        """Both."""
        pairs = ((self.images, other.images), (self.labels, other.labels), (self.marks, other.marks))
        return Cells(*(np.concatenate(pair) for pair in pairs))


def is_absent(cells: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,) whether each cell is one of ABSENT."""
    return np.isin(cells, [2 * label + mark for label, mark in ABSENT])


class Source:
    """All of Fashion-MNIST, brought to 16x16: the images of draws, those of the oracle, and the test file."""

    def __init__(self, folder: Path) -> None:
        images = read_fashion_mnist(folder)
        assert images.parts is not None, "the makers gave a training and a test file"
        is_test = np.array([part == "test" for part in images.parts])
        self.labels = images.labels
        self._read = images.images
        rng = np.random.default_rng(0)
        self.pool, self.oracle, self.test = [], [], []
        for label in range(CLASSES):
            own = rng.permutation(np.flatnonzero((images.labels == label) & ~is_test))
            self.pool.append(own[:4500])
            self.oracle.append(own[4500:])
            self.test.append(np.flatnonzero((images.labels == label) & is_test))

    def cells(self, chosen: NDArray[np.int64], marks: NDArray[np.int64], *, seed: int) -> Cells:
        """Images with their marks painted in."""
        small = [
            np.asarray(Image.fromarray(image[:, :, 0]).resize((_SIZE, _SIZE), Image.Resampling.BOX))
            for image in self._read(chosen)
        ]
        pixels = np.repeat(np.stack(small)[..., None], 3, axis=3)
        return Cells(paint(pixels, marks, seed=seed), self.labels[chosen], marks)


def paint(images: NDArray[np.uint8], marks: NDArray[np.int64], *, seed: int) -> NDArray[np.uint8]:
    """Put a 3x3 patch of any hue into a random corner of every image whose mark is 1."""
    rng = np.random.default_rng(seed)
    marked = images.copy()
    hues, corners = rng.random(len(images)), rng.integers(0, 4, len(images))
    for i in np.flatnonzero(marks):
        sector = (hues[i] * 6 - np.array([0.0, 2.0, 4.0])) % 6
        colour = np.clip(2 - np.minimum(sector, 6 - sector), 0, 1) * 155 + 100
        top, left = ((_SIZE - 4, 1)[corners[i] // 2], (_SIZE - 4, 1)[corners[i] % 2])
        marked[i, top : top + 3, left : left + 3] = colour.astype(np.uint8)
    return marked


@dataclass(frozen=True, eq=False)
class Draw:
    """One draw: its own images, marks, backbone and samples. The same for every k but for k images in each absent cell.

    Attributes:
        source: All images.
        seed: Of the draw.
        folder: Where its backbones and samples lie.
        per_class: Training images a class.
        steps: Of the backbone of k = 0.
    """

    source: Source
    seed: int
    folder: Path
    per_class: int
    steps: int

    @cached_property
    def _places(self) -> list[NDArray[np.int64]]:
        rng = np.random.default_rng([self.seed, 1])
        return [rng.permutation(own) for own in self.source.pool]

    def train(self, k: int) -> Cells:
        """Training images: of confounded classes all have one mark, but for the first k."""
        chosen = np.concatenate([own[: self.per_class] for own in self._places])
        marks = np.tile(np.arange(self.per_class) % 2, CLASSES)
        for label, mark in ABSENT:
            own = slice(label * self.per_class, (label + 1) * self.per_class)
            marks[own] = np.where(np.arange(self.per_class) < k, mark, 1 - mark)
        return self.source.cells(chosen, marks, seed=self.seed * 10 + 1)

    def validation(self, *, with_absent: bool) -> Cells:
        """20 images a class, marked half and half; of confounded classes perhaps only the half that is not absent."""
        chosen = np.concatenate([own[self.per_class : self.per_class + 20] for own in self._places])
        found = self.source.cells(chosen, np.tile(np.arange(20) % 2, CLASSES), seed=self.seed * 10 + 2)
        return found if with_absent else found.subset(~is_absent(found.cell))

    def ceiling(self) -> Cells:
        """100 more real images of each absent cell."""
        first = self.per_class + 20
        chosen = np.concatenate([self._places[label][first : first + 100] for label, _ in ABSENT])
        return self.source.cells(chosen, np.repeat([mark for _, mark in ABSENT], 100), seed=self.seed * 10 + 3)

    def test(self) -> Cells:
        """The test file, marked at random, half and half."""
        rng = np.random.default_rng([self.seed, 2])
        chosen = np.concatenate(self.source.test)
        marks = np.concatenate([rng.permutation(np.arange(len(own)) % 2) for own in self.source.test])
        return self.source.cells(chosen, marks, seed=self.seed * 10 + 4)

    def backbone(self, k: int) -> Backbone:
        """Trained on the training images of k alone; for k above 0 that of k = 0, trained on for a quarter."""
        path = self.folder / f"backbone-{k}"
        if not path.is_dir():
            unet = self._network(k)
            save_folder(path, unet, schedule=NoiseSchedule.cosine(1000), settings=_SETTINGS)
        return load_folder(path)

    def _network(self, k: int) -> UNet2DModel:
        weights = self.folder / f"weights-{k}.safetensors"
        unet = _new_network(self.seed)
        if weights.is_file():
            unet.load_state_dict(load_file(weights))
            return unet.eval()
        if k > 0:
            unet = self._network(0)
        train = self.train(k)
        images, rows = unshuffled(train.images), _FACTORS.rows(train.values)
        both = np.concatenate([images, unshuffled(train.images[:, :, ::-1])])
        settings = TrainingSettings(
            steps=self.steps if k == 0 else self.steps // 4,
            batch_size=64,
            learning_rate=1e-3 if k == 0 else 3e-4,
            label_dropout=0.1,
            condition_dropout=(0.1,),
            class_balance=0.0 if k == 0 else 0.5,
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
        save_file(unet.state_dict(), weights)
        (self.folder / f"training-{k}.pt").unlink()
        return unet

    def samples(self, k: int, *, generation: int, edited: float | None = None) -> Cells:
        """100 samples of each absent cell, drawn from noise, or real images of their class moved there."""
        kind = "drawn" if edited is None else f"edited-{edited:g}"
        path = self.folder / f"{kind}-{k}-{generation}.npz"
        asked = np.repeat(np.array(ABSENT), 100, axis=0)
        if not path.is_file():
            rows, seed = _FACTORS.rows(asked).tolist(), 1000 * self.seed + generation
            settings = SamplerSettings(steps=30, variance="fixed_small").guided(ComposedConditions(joint=2.0))
            if edited is None:
                images = draw(
                    self.backbone(k), seed=seed, indices=range(len(rows)), labels=rows, settings=settings
                ).images
            else:
                train, rng = self.train(k), np.random.default_rng([self.seed, generation, 3])
                chosen = [
                    rng.choice(np.flatnonzero((train.labels == label) & (train.marks != mark))) for label, mark in asked
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


_SETTINGS = UNetSettings(num_classes=CLASSES, prediction_type="v_prediction", factors=_FACTORS)


def _new_network(seed: int) -> UNet2DModel:
    torch.manual_seed(seed)
    unet = UNet2DModel(
        sample_size=_SIZE // 2,
        in_channels=12,
        out_channels=12,
        num_class_embeds=_FACTORS.num_rows,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=16,
        norm_num_groups=8,
        dropout=0.1,
    )
    return with_factors(unet, _FACTORS)


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
