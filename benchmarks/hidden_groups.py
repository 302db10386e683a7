"""Coloured and marked Fashion-MNIST: classes with an attribute that gives them away in all but one image of a hundred.

Two constructions, 16x16 RGB:

    colour  every class has a hue of its own (as Nam et al. 2020 colour digits); conflicts wear one of nine others
    mark    a patch of 3x3 bright pixels of any hue in one corner, in five classes; confusable classes lie in opposite
            halves; conflicts have the mark where their class has none, or lack it

Validation, oracle and test images are uniform in the attribute. Every draw splits, colours and marks anew.

Shapes: N images, H x W pixels.
"""

import colorsys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.readers.fashion_mnist import CLASS_NAMES, read_fashion_mnist

Construction = Literal["colour", "mark"]

SIDE = 16
NUM_CLASSES = len(CLASS_NAMES)
#: Trouser, pullover, sandal, shirt and boot are marked: T-shirt and shirt, pullover and coat, sandal and sneaker,
#: trouser and dress, bag and boot lie in opposite halves.
MARKED = np.array([False, True, True, False, False, True, True, False, False, True])
_HUE_SPREAD = 0.015  # deviation of a hue within its colour; neighbouring colours are 0.1 apart
_FILE_TRAIN, _FILE_TEST = 60_000, 10_000


@dataclass(frozen=True, eq=False)
class Part:
    """Images with class and attribute.

    Attributes:
        images: (N, 16, 16, 3) uint8.
        labels: (N,) classes.
        attributes: (N,) colours in [0, 10), or 0 and 1 for without and with mark.
        conflicts: (N,) whether the attribute is not the one of the class.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    attributes: NDArray[np.int64]
    conflicts: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False, kw_only=True)
class HiddenGroups:
    """One draw: biased training images, and unbiased ones to choose, to measure and to test on."""

    train: Part
    validation: Part
    oracle: Part
    test: Part


def draw_hidden_groups(
    folder: Path,
    construction: Construction,
    *,
    draw: int,
    conflict_share: float = 0.01,
    train_per_class: int = 1000,
    validation_per_class: int = 20,
    oracle_per_class: int = 1000,
    test_per_class: int = 400,
) -> HiddenGroups:
    """Split, colour and mark Fashion-MNIST by the random numbers of one draw.

    Training, validation and oracle images are disjoint and from the makers' training part, test images from their test
    part.

    Args:
        folder: Where Fashion-MNIST lies.
        construction: What gives the class away.
        draw: Decides split and attributes.
        conflict_share: Share of every class's training images whose attribute is another's, in (0, 1).
        train_per_class: Training images a class.
        validation_per_class: Validation images a class.
        oracle_per_class: Images a class for measuring instruments alone.
        test_per_class: Test images a class.
    """
    if not 0 < conflict_share < 1:
        raise ValueError(f"conflict_share must lie in (0, 1), got {conflict_share}.")
    pixels, labels = _small_images(str(folder))
    rng = np.random.default_rng([draw, 19])
    sizes = (train_per_class, validation_per_class, oracle_per_class)
    chosen: dict[str, list[NDArray[np.int64]]] = {name: [] for name in ("train", "validation", "oracle", "test")}
    for label in range(NUM_CLASSES):
        order = rng.permutation(np.flatnonzero(labels[:_FILE_TRAIN] == label))
        ends = np.cumsum(sizes)
        for name, part in zip(chosen, np.split(order[: ends[-1]], ends[:-1]), strict=False):
            chosen[name].append(part)
        of_test = _FILE_TRAIN + np.flatnonzero(labels[_FILE_TRAIN:] == label)
        chosen["test"].append(rng.permutation(of_test)[:test_per_class])
    parts = {}
    for name, per_class in chosen.items():
        places = np.concatenate(per_class)
        share = conflict_share if name == "train" else None
        attributes = _attributes(labels[places], construction, share=share, rng=rng)
        parts[name] = Part(
            images=_painted(pixels[places], attributes, construction, rng=rng),
            labels=labels[places],
            attributes=attributes,
            conflicts=attributes != usual_attribute(labels[places], construction),
        )
    return HiddenGroups(**parts)


def usual_attribute(labels: NDArray[np.int64], construction: Construction) -> NDArray[np.int64]:
    """(N,) the attribute that gives each class away."""
    return labels if construction == "colour" else MARKED[labels].astype(np.int64)


def num_attributes(construction: Construction) -> int:
    """How many values the attribute has."""
    return NUM_CLASSES if construction == "colour" else 2


def _attributes(
    labels: NDArray[np.int64], construction: Construction, *, share: float | None, rng: np.random.Generator
) -> NDArray[np.int64]:
    """(N,) attributes: a share of every class has another than the class's own; None spreads them evenly."""
    values = num_attributes(construction)
    attributes = usual_attribute(labels, construction).copy()
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        usual = attributes[members[0]]
        if share is None:
            attributes[members] = np.arange(len(members)) % values
        else:
            others = np.setdiff1d(np.arange(values), usual)
            count = max(1, round(share * len(members)))
            attributes[members[:count]] = rng.permutation(np.resize(others, count))
    return attributes


def _painted(
    grey: NDArray[np.float64], attributes: NDArray[np.int64], construction: Construction, *, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """(N, 16, 16, 3) uint8 of (N, 16, 16) in [0, 1]."""
    if construction == "colour":
        hues = attributes / NUM_CLASSES + rng.normal(0, _HUE_SPREAD, len(attributes))
        colours = np.array([colorsys.hsv_to_rgb(hue % 1.0, 1.0, 1.0) for hue in hues])
        # A little white in every colour: no channel is ever empty.
        painted = grey[..., None] * (0.15 + 0.85 * colours[:, None, None, :])
    else:
        painted = np.repeat(grey[..., None], 3, axis=3)
        rows, columns = rng.integers(0, 2, (2, len(attributes))) * (SIDE - 3)
        for i in np.flatnonzero(attributes):
            colour = 0.5 + 0.5 * np.array(colorsys.hsv_to_rgb(rng.random(), 1.0, 1.0))
            painted[i, rows[i] : rows[i] + 3, columns[i] : columns[i] + 3] = colour
    pixels: NDArray[np.uint8] = np.round(255 * painted).clip(0, 255).astype(np.uint8)
    return pixels


@lru_cache(maxsize=1)
def _small_images(folder: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """All images at 16x16 in [0, 1], the makers' training part first, and their labels."""
    images = read_fashion_mnist(folder)
    small = np.empty((len(images), SIDE, SIDE))
    for place in range(len(images)):
        picture = Image.fromarray(images.image(place)[:, :, 0])
        small[place] = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64) / 255
    if len(images) != _FILE_TRAIN + _FILE_TEST:
        raise ValueError(f"{folder} holds {len(images)} images of Fashion-MNIST, not 70,000; fetch them again.")
    return small, images.labels
