"""Fashion-MNIST at 16x16 with a mark that some classes never have, or always.

Three pairs of confusable garments are confounded with the mark (a bright 3x3 patch of any hue in a random corner):
T-shirt, pullover and sandal never have it, shirt, coat and sneaker always do. Their six other cells have k real images
each. Trouser, dress, bag and boot have both, half and half.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.absent_cells.construction import BUDGET, Cells, Construction, Draw
from datasets.readers.fashion_mnist import read_fashion_mnist

CLASSES = 10
PER_CLASS = 1000  # training images
_WITHOUT, _WITH = (0, 2, 5), (6, 4, 7)  # T-shirt, pullover, sandal; shirt, coat, sneaker
FASHION_MARK = Construction(
    attribute=("mark", "absent", "present"),
    labels=("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"),
    absent=tuple((label, 1) for label in _WITHOUT) + tuple((label, 0) for label in _WITH),
    side=16,
    steps=2700,
    class_balance=0.0,
    budget=BUDGET,
    judges=replace(BUDGET, steps=300, width=16),
    samples=100,
    more_real=100,
)


class FashionMark:
    """All of Fashion-MNIST: the images of draws, those of the oracle, and the test file."""

    construction = FASHION_MARK

    def __init__(self, data: Path) -> None:
        images = read_fashion_mnist(data / "fashion_mnist")
        assert images.parts is not None, "the makers gave a training and a test file"
        is_test = np.array([part == "test" for part in images.parts])
        self.labels = images.labels
        self._read = images.images
        rng = np.random.default_rng(0)
        self.pool, self._oracle, self.test = [], [], []
        for label in range(CLASSES):
            own = rng.permutation(np.flatnonzero((images.labels == label) & ~is_test))
            self.pool.append(own[:4500])
            self._oracle.append(own[4500:])
            self.test.append(np.flatnonzero((images.labels == label) & is_test))

    def draw(self, seed: int, folder: Path) -> "FashionDraw":
        """See `Source`."""
        return FashionDraw(FASHION_MARK, seed, folder, self)

    def oracle(self) -> Cells:
        """See `Source`: images of no draw, marked at random."""
        chosen = np.concatenate(self._oracle)
        return self.cells(chosen, np.random.default_rng(9).integers(0, 2, len(chosen)), seed=9)

    def cells(self, chosen: NDArray[np.int64], marks: NDArray[np.int64], *, seed: int) -> Cells:
        """Images with their marks painted in."""
        small = [
            np.asarray(
                Image.fromarray(image[:, :, 0]).resize((FASHION_MARK.side, FASHION_MARK.side), Image.Resampling.BOX)
            )
            for image in self._read(chosen)
        ]
        pixels = np.repeat(np.stack(small)[..., None], 3, axis=3)
        return Cells(paint(pixels, marks, seed=seed), self.labels[chosen], marks)


def paint(images: NDArray[np.uint8], marks: NDArray[np.int64], *, seed: int) -> NDArray[np.uint8]:
    """Put a 3x3 patch of any hue into a random corner of every image whose mark is 1."""
    rng, side = np.random.default_rng(seed), FASHION_MARK.side
    marked = images.copy()
    hues, corners = rng.random(len(images)), rng.integers(0, 4, len(images))
    for i in np.flatnonzero(marks):
        sector = (hues[i] * 6 - np.array([0.0, 2.0, 4.0])) % 6
        colour = np.clip(2 - np.minimum(sector, 6 - sector), 0, 1) * 155 + 100
        top, left = ((side - 4, 1)[corners[i] // 2], (side - 4, 1)[corners[i] % 2])
        marked[i, top : top + 3, left : left + 3] = colour.astype(np.uint8)
    return marked


@dataclass(frozen=True, eq=False)
class FashionDraw(Draw):
    """A draw: 1,000 training images a class, and marks.

    Attributes:
        source: All images.
    """

    source: FashionMark

    @cached_property
    def _places(self) -> list[NDArray[np.int64]]:
        rng = np.random.default_rng([self.seed, 1])
        return [rng.permutation(own) for own in self.source.pool]

    def train(self, k: int) -> Cells:
        """See `Draw`: images of confounded classes all have one mark, but for the first k."""
        chosen = np.concatenate([own[:PER_CLASS] for own in self._places])
        marks = np.tile(np.arange(PER_CLASS) % 2, CLASSES)
        for label, mark in FASHION_MARK.absent:
            own = slice(label * PER_CLASS, (label + 1) * PER_CLASS)
            marks[own] = np.where(np.arange(PER_CLASS) < k, mark, 1 - mark)
        return self.source.cells(chosen, marks, seed=self.seed * 10 + 1)

    def validation(self) -> Cells:
        """See `Draw`: 20 images a class, marked half and half."""
        chosen = np.concatenate([own[PER_CLASS : PER_CLASS + 20] for own in self._places])
        return self.source.cells(chosen, np.tile(np.arange(20) % 2, CLASSES), seed=self.seed * 10 + 2)

    def ceiling(self) -> Cells:
        """See `Draw`."""
        first, count = PER_CLASS + 20, FASHION_MARK.more_real
        chosen = np.concatenate([self._places[label][first : first + count] for label, _ in FASHION_MARK.absent])
        marks = np.repeat([mark for _, mark in FASHION_MARK.absent], count)
        return self.source.cells(chosen, marks, seed=self.seed * 10 + 3)

    def test(self) -> Cells:
        """See `Draw`: the test file, marked at random, half and half."""
        rng = np.random.default_rng([self.seed, 2])
        chosen = np.concatenate(self.source.test)
        marks = np.concatenate([rng.permutation(np.arange(len(own)) % 2) for own in self.source.test])
        return self.source.cells(chosen, marks, seed=self.seed * 10 + 4)
