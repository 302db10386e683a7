"""A tiny set whose classes are confounded with an attribute: bars, lying or standing, red or blue."""

import csv

import numpy as np
from PIL import Image

SIDE = 8


def bar(label: str, colour: str, rng: np.random.Generator) -> np.ndarray:
    """(8, 8, 3) uint8: a bar two pixels wide in a random place, on a dark ground with a little noise."""
    image = rng.integers(0, 30, (SIDE, SIDE, 3))
    start = int(rng.integers(1, SIDE - 2))
    where = np.s_[start : start + 2, 1 : SIDE - 1] if label == "lying" else np.s_[1 : SIDE - 1, start : start + 2]
    image[(*where, {"red": 0, "blue": 2}[colour])] += rng.integers(170, 220)
    return image.astype(np.uint8)


def make_marked_set(folder, *, counts=None, seed=0):
    """Write images and table. Returns the dataset section of a config.

    `counts` says how many images of each class and colour there are; those of an absent one are in the test part alone.
    """
    counts = counts or {("lying", "red"): 60, ("lying", "blue"): 60, ("standing", "red"): 60, ("standing", "blue"): 0}
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    rows = []
    for (label, colour), count in counts.items():
        for part, number in (("train", count), ("val", 8), ("test", 8)):
            for _ in range(number):
                name = f"{len(rows):05d}.png"
                Image.fromarray(bar(label, colour, rng)).save(folder / "images" / name)
                rows.append((name, label, colour, part))
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "shape", "colour", "part"), *rows])
    table = {
        "name": "bars",
        "table": "labels.csv",
        "images": "images",
        "image_column": "image",
        "label_column": "shape",
        "groups": ["colour"],
        "split_column": "part",
    }
    return {"reader": "image_table", "folder": str(folder), "table": table}
