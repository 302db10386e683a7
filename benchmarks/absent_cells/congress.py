"""Portraits of the US Congress at 16x16: women in photographs without colour are taken out of training.

A real attribute. The label is the sex, the attribute whether the photograph has colour (what is black and white, or an
engraving, is mostly old: clothes, hair and manner differ as well). 95 of 100 portraits are of men. The 131 women
without colour are in no training at k = 0: they are test images, validation images, and what the best that could be
hoped for adds. As one portrait is one person, no person is on two sides. Portraits that have colour and are of members
who left before 1950 are sepia, nearly all of them of men: these 604 are left out.

All draws share those 131 women, so that intervals over draws are about these people and other splits of them, not about
other women.

What a user would try first costs no generator: to take the colour out of the portraits that have it. That recipe is
among those on real images.
"""

import io
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from benchmarks.absent_cells.construction import BUDGET, Cells, Construction, Draw

MEN, WOMEN = 0, 1
COLOUR, GREY = 0, 1
GREY_COPIES = "balanced, with grey copies"
_COLOURED = 8.0  # mean distance of a pixel from grey, in steps of 255, above which a portrait has colour
_NO_SEPIA = 1950  # first year of a member's last congress from which colour is colour
_TEST = {(MEN, COLOUR): 300, (MEN, GREY): 400, (WOMEN, COLOUR): 60, (WOMEN, GREY): 66}
_VALIDATION = 20  # of every cell
CONGRESS = Construction(
    attribute=("photograph", "colour", "grey"),
    labels=("man", "woman"),
    absent=((WOMEN, GREY),),
    side=16,
    steps=1500,
    class_balance=0.5,
    budget=BUDGET,
    judges=BUDGET,
    samples=200,
    more_real=25,
    recipes=(GREY_COPIES,),
)


class Congress:
    """All portraits whose sex is known."""

    construction = CONGRESS

    def __init__(self, data: Path) -> None:
        rows = pd.read_parquet(data / "congress" / "labels.parquet")
        coloured = rows["chroma_derived"] > _COLOURED
        sepia = coloured & (rows["last_congress_start_year"] < _NO_SEPIA)
        rows = rows[rows["sex"].isin(["male", "female"]) & ~sepia].sort_values("file")
        size = (CONGRESS.side, CONGRESS.side)
        with zipfile.ZipFile(data / "congress" / "images.zip") as archive:
            pictures = [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in rows["file"]]
        images = np.stack([np.asarray(picture.resize(size, Image.Resampling.BOX)) for picture in pictures])
        labels = np.where(rows["sex"] == "female", WOMEN, MEN).astype(np.int64)
        attributes = np.where(rows["chroma_derived"] > _COLOURED, COLOUR, GREY).astype(np.int64)
        self.every = Cells(images, labels, attributes)

    def draw(self, seed: int, folder: Path) -> "CongressDraw":
        """See `Source`."""
        return CongressDraw(CONGRESS, seed, folder, self)

    def oracle(self) -> Cells:
        """See `Source`: all portraits, every cell drawn equally often."""
        return self.every


@dataclass(frozen=True, eq=False)
class CongressDraw(Draw):
    """A draw: a split of its own.

    Attributes:
        source: All images.
    """

    source: Congress

    @cached_property
    def _parts(self) -> dict[str, list[NDArray[np.int64]]]:
        rng = np.random.default_rng([self.seed, 1])
        parts: dict[str, list[NDArray[np.int64]]] = {"test": [], "validation": [], "train": [], "held": []}
        for (label, attribute), count in _TEST.items():
            own = rng.permutation(np.flatnonzero(self.source.every.cell == 2 * label + attribute))
            absent = (label, attribute) in CONGRESS.absent
            parts["test"].append(own[:count])
            parts["validation"].append(own[count : count + _VALIDATION])
            parts["held" if absent else "train"].append(own[count + _VALIDATION :])
        return parts

    def _of(self, part: str) -> NDArray[np.int64]:
        return np.concatenate(self._parts[part])

    def train(self, k: int) -> Cells:
        """See `Draw`.

        Raises:
            ValueError: More images of the absent cell are asked for than are held for that.
        """
        most = len(self._of("held")) - CONGRESS.more_real
        if k > most:
            raise ValueError(
                f"congress has {most} women without colour for training, k = {k} is more; give --k up to that."
            )
        return self.source.every.subset(np.concatenate([self._of("train"), self._of("held")[:k]]))

    def validation(self) -> Cells:
        """See `Draw`: 20 of each of the four cells."""
        return self.source.every.subset(self._of("validation"))

    def ceiling(self) -> Cells:
        """See `Draw`."""
        return self.source.every.subset(self._of("held")[-CONGRESS.more_real :])

    def test(self) -> Cells:
        """See `Draw`."""
        return self.source.every.subset(self._of("test"))


def with_grey_copies(train: Cells) -> Cells:
    """The training images, and those that have colour once more without it, as if they had been taken so."""
    coloured = train.subset(np.flatnonzero(train.attributes == COLOUR))
    grey = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in coloured.images])
    copies = np.repeat(grey[..., None], 3, axis=3)
    return train.joined(Cells(copies, coloured.labels, np.full(len(coloured.labels), GREY)))
