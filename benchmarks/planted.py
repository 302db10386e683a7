"""What selection keeps and lets through, on planted candidates whose worth is known.

    .venv/bin/python -m benchmarks.planted --data digits --splits 5
    .venv/bin/python -m benchmarks.planted --data fashion_mnist --folder data/fashion_mnist --train 6000 --splits 1

Good are real images that nothing was fitted on and that are rare. Bad are noise, blends of two images, training images
with a little noise, mirrored training images, and rare real images under a wrong label. Every split of the data is
evaluated anew; shares are over all splits, with 95 % intervals (Wilson).
"""

import argparse

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from datasets.readers.digits import read_digits
from datasets.readers.fashion_mnist import read_fashion_mnist
from datasets.readers.imageset import ImageSet
from minority.evaluation.intervals import wilson
from minority.features import Pixels
from minority.selection.filter_building import HeldOutRules, SelectionSettings, build_filter
from minority.selection.negatives import blends

POLICIES = {"fixed floors": None, "held-out floors and discriminator": HeldOutRules()}


def planted(
    train: ImageSet, held_out: ImageSet, *, count: int, seed: int
) -> dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Candidates by kind: images and the labels that they claim."""
    rng = np.random.default_rng(seed)
    real, labels = train.images(range(len(train))), train.labels
    unseen, unseen_labels = held_out.images(range(len(held_out))), held_out.labels
    some = rng.integers(len(real), size=count)

    def noisy(places: NDArray[np.int64], strength: float) -> NDArray[np.uint8]:
        return _clipped(real[places] + strength * rng.normal(size=real[places].shape))

    def pairs(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return blends(images, rng, count=count, edge=0.35)

    return {
        "rare unseen real image": (unseen, unseen_labels),
        "noise, uniform": (rng.integers(0, 256, (count, *real.shape[1:])).astype(np.uint8), labels[some]),
        "noise, like the images": (
            _clipped(rng.normal(real.mean(), real.std(), (count, *real.shape[1:]))),
            labels[some],
        ),
        "blend of two training images": (pairs(real), labels[some]),
        "blend of two unseen images": (pairs(unseen), labels[some]),
        "training image, noise of 4 levels": (noisy(some, 4.0), labels[some]),
        "training image, noise of 10 levels": (noisy(some, 10.0), labels[some]),
        "training image, mirrored": (np.ascontiguousarray(real[some][:, :, ::-1]), labels[some]),
        "rare unseen image, wrong label": (unseen, (unseen_labels + 1) % len(train.class_names)),
    }


def measure(train: ImageSet, held_out: ImageSet, *, count: int, seed: int) -> pd.DataFrame:
    """One row a policy and kind: how many there were, were rare, and passed."""
    extract = Pixels()
    images = train.images(range(len(train)))
    kinds = planted(train, held_out, count=count, seed=seed)
    rows = []
    for policy, rules in POLICIES.items():
        candidate_filter = build_filter(
            extract(images), train.labels, settings=SelectionSettings(held_out=rules), images=images, extract=extract
        )
        for kind, (candidates, labels) in kinds.items():
            verdicts = candidate_filter.evaluate(extract(candidates), labels, images=candidates)
            asked = verdicts.rare if kind.startswith("rare") else np.ones(len(labels), dtype=bool)
            rows.append(
                {
                    "policy": policy,
                    "kind": kind,
                    "candidates": int(asked.sum()),
                    "rare": int(verdicts.rare.sum()),
                    "passed": int((verdicts.passed & asked).sum()),
                    "refused: not real-looking": int((asked & ~verdicts.valid).sum()),
                    "copy": int((asked & ~verdicts.new).sum()),
                    "label": int((asked & ~verdicts.label_kept).sum()),
                }
            )
    return pd.DataFrame(rows)


def table(measured: pd.DataFrame) -> str:
    """Shares over all splits as Markdown."""
    summed = measured.groupby(["policy", "kind"], sort=False).sum().reset_index()
    shown = summed[["policy", "kind", "candidates"]].copy()
    shown["passed, %"] = [
        f"{100 * k / n:.1f} ({100 * low:.1f} ... {100 * high:.1f})"
        for k, n in zip(summed["passed"], summed["candidates"], strict=True)
        for low, high in [wilson(int(k), int(n))]
    ]
    for column in ("refused: not real-looking", "copy", "label"):
        shown[f"{column}, %"] = (100 * summed[column] / summed["candidates"]).round(1)
    return str(shown.to_markdown(index=False))


def split(images: ImageSet, *, train: int, held_out: int, seed: int) -> tuple[ImageSet, ImageSet]:
    """Two parts drawn at random."""
    order = np.random.default_rng(seed).permutation(len(images))
    return images.subset(order[:train]), images.subset(order[train : train + held_out])


def _clipped(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = np.rint(np.clip(values, 0, 255)).astype(np.uint8)
    return pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=("digits", "fashion_mnist"), default="digits")
    parser.add_argument("--folder", default="data/fashion_mnist", help="of Fashion-MNIST's files")
    parser.add_argument("--train", type=int, default=1000, help="training images")
    parser.add_argument("--held-out", type=int, default=790, help="unseen images, of which the rare ones are planted")
    parser.add_argument("--count", type=int, default=500, help="candidates of every bad kind and split")
    parser.add_argument("--splits", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images = read_digits() if arguments.data == "digits" else read_fashion_mnist(arguments.folder)
    parts = []
    for seed in range(arguments.splits):
        train, held_out = split(images, train=arguments.train, held_out=arguments.held_out, seed=seed)
        parts.append(measure(train, held_out, count=arguments.count, seed=seed))
    print(table(pd.concat(parts)))


if __name__ == "__main__":
    main()
