"""What a pretrained backbone saw, and whether it saw the images that its user tests on.

A backbone that has seen a test image makes every figure on that image worthless: an arm with its samples may have been
handed the very image. So the images that it saw are searched for near-duplicates of the test images, which are refused
by name. Near-duplicates of training images do no harm; they, and those of validation images, are counted and told.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.readers.imageset import ImageSet
from minority.neighbours.pairwise import nearest
from tasks.config.sections import BackboneConfig
from tasks.errors import InputError
from tasks.inputs.real_data import RealData, load_real_data

#: Root mean square difference of two pictures, of a range of 1, up to which one is a near-duplicate of the other:
#: above what resizing and JPEG leave, below what two scans of the same digit differ by (at least 0.04).
NEAR = 0.02
_SIDE = 16  # pixels a side at which pictures are compared, at most
_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Near-duplicates between what a backbone saw and the user's images.

    Attributes:
        images: How many images it saw.
        pairs: Part -> (the user's image, the seen one), by their ids.
    """

    images: int
    pairs: Mapping[str, tuple[tuple[str, str], ...]]

    def to_text(self) -> str:
        """In a sentence, for the start of a run."""
        counts = ", ".join(f"{len(found)} of {part}" for part, found in self.pairs.items())
        return f"The backbone saw {self.images:,} images; near-duplicates among the user's: {counts}."


def check_pretrained(config: BackboneConfig, real: RealData) -> Overlap | None:
    """Look for the user's images among those that the backbone saw.

    Returns:
        What there is; None where the config does not say which images it saw.

    Raises:
        InputError: A test image is among them, or they cannot be read or compared.
    """
    if config.pretrained_on is None or config.pretrained_on.dataset is None:
        return None
    seen = load_real_data(config.pretrained_on.dataset).train
    overlap = _overlap(seen, real)
    leaked = overlap.pairs["test"]
    if leaked:
        named = "; ".join(f"{image} is nearly {other}" for image, other in leaked[:_NAMED])
        more = "" if len(leaked) <= _NAMED else f"; and {len(leaked) - _NAMED} more"
        raise InputError(
            f"backbone.pretrained_on: the backbone saw {len(leaked)} of {len(real.test)} test images ({named}{more}); "
            "take them out of the test part, or a backbone that did not see them."
        )
    return overlap


def _overlap(seen: ImageSet, real: RealData) -> Overlap:
    parts = {"training": real.train, "validation": real.validation, "test": real.test}
    pairs = {name: near_duplicates(part, seen) for name, part in parts.items()}
    return Overlap(images=len(seen), pairs=pairs)


def near_duplicates(images: ImageSet, seen: ImageSet) -> tuple[tuple[str, str], ...]:
    """Pairs of ids (an image, the seen one nearest to it) that are no farther apart than NEAR.

    Both sets are compared as grey pictures of one size.
    """
    if len(images) == 0 or len(seen) == 0:
        return ()
    side = min(_SIDE, *images.image_shape[:2], *seen.image_shape[:2])
    small, other = _small(images, side), _small(seen, side)
    distances, indices = nearest(small, other, k=1)
    close = np.flatnonzero(distances[:, 0] / math.sqrt(small.shape[1]) <= NEAR)
    return tuple((images.source_ids[i], seen.source_ids[indices[i, 0]]) for i in close)


@lru_cache(maxsize=8)
def _small(images: ImageSet, side: int) -> NDArray[np.float32]:
    """(N, side * side) grey pictures in [0, 1], averaged over areas."""
    small = np.empty((len(images), side * side), dtype=np.float32)
    for row in range(len(images)):
        pixels = images.image(row)
        picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("L")
        small[row] = np.asarray(picture.resize((side, side), Image.Resampling.BOX), dtype=np.float32).ravel() / 255
    return small
