"""Handwritten digits in colours of this project's making, 32 x 32 pixels: groups of digit and colour, no download.

The scans are those of `datasets.readers.digits` (scikit-learn), enlarged three times by a bicubic filter, in one colour
on black with a border. "skewed" is a set with a bias that a classifier can fall for: even digits are mostly red, odd
ones mostly blue, one scan in ten the other way round. "even" has every scan in six colours, as a model has seen more
than the set which it is to fill up.
"""

import hashlib
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.readers.digits import LICENCE as _LICENCE
from datasets.readers.digits import read_digits
from datasets.readers.imageset import ImageSet

LICENCE = f"{_LICENCE} Coloured and enlarged by this project."
Colours = Literal["skewed", "even"]
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOURS = {
    "red": (235, 45, 45),
    "blue": (55, 95, 245),
    "green": (45, 205, 75),
    "yellow": (240, 220, 55),
    "purple": (175, 65, 225),
    "white": (240, 240, 240),
}
_SIDE, _INK = 32, 24  # pixels of an image, and of the enlarged scan in its middle
_RARE = 0.1  # share of scans of a digit in the colour that is rare for it


def read_coloured_digits(*, colours: Colours = "skewed") -> ImageSet:
    """Read the digits as coloured images, uint8 (32, 32, 3), ink bright on black.

    Args:
        colours: "skewed": every scan once, red or blue; "even": every scan in all six colours.

    Returns:
        Groups such as "digit=three,colour=red"; a scan is one identity in either form, so that with the same settings
        both are split alike.

    Example:
        >>> digits = read_coloured_digits()
        >>> len(digits), digits.image_shape, digits.groups[0]
        (1797, (32, 32, 3), 'digit=zero,colour=red')
    """
    scans = read_digits()
    if colours == "even":
        chosen = [(scan, colour) for scan in range(len(scans)) for colour in COLOURS]
    else:
        chosen = [(scan, _skewed(scan, int(label))) for scan, label in enumerate(scans.labels)]
    labels = scans.labels[[scan for scan, _ in chosen]]
    digits = [NAMES[label] for label in labels]
    return ImageSet(
        name="coloured_digits",
        labels=labels,
        groups=[f"digit={digit},colour={colour}" for digit, (_, colour) in zip(digits, chosen, strict=True)],
        source_ids=[f"coloured_digits/{scan:05d}/{colour}" for scan, colour in chosen],
        class_names=list(NAMES),
        image_shape=(_SIDE, _SIDE, 3),
        load=_Coloured(scans, chosen),
        identities=[scans.source_ids[scan] for scan, _ in chosen],
        attributes={"digit": list(digits), "colour": [colour for _, colour in chosen]},
    )


def _skewed(scan: int, digit: int) -> str:
    """The colour of a scan, decided by its number alone."""
    uniform = int.from_bytes(hashlib.sha256(f"colour of scan {scan}".encode()).digest()[:6], "big") / 2**48
    common, rare = ("red", "blue") if digit % 2 == 0 else ("blue", "red")
    return rare if uniform < _RARE else common


class _Coloured:
    """Enlarges and colours a scan when it is asked for."""

    def __init__(self, scans: ImageSet, chosen: list[tuple[int, str]]) -> None:
        self._scans, self._chosen = scans, chosen

    def __call__(self, index: int) -> NDArray[np.uint8]:
        scan, colour = self._chosen[index]
        small = Image.fromarray(self._scans.image(scan)[:, :, 0])
        ink = np.asarray(small.resize((_INK, _INK), Image.Resampling.BICUBIC), dtype=np.float64) / 255
        ink = np.pad(ink, (_SIDE - _INK) // 2)
        return np.round(ink[:, :, np.newaxis] * np.array(COLOURS[colour])).astype(np.uint8)
