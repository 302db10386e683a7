"""Does the headroom's interval hold? Fashion-MNIST with images held back: .venv/bin/python -m benchmarks.headroom

A user's set is drawn from the training images, long-tailed; as many images of every class again are held back. The
headroom is predicted from the user's set alone; then the recipe is trained with the held-back images added, and its
gain on each seed's held-out images is compared with the interval, class by class and seed by seed. Needs MINORITY_DATA.
"""

import argparse
import os
from pathlib import Path

import numpy as np

from datasets.readers.fashion_mnist import read_fashion_mnist
from datasets.readers.imageset import ImageSet
from minority.downstream.arms import REAL_ARMS
from minority.downstream.data import DownstreamData, LabelledImages
from minority.downstream.learning_curve import accuracy_by_group, headroom, measure_curves, split_by_group
from minority.downstream.settings import DownstreamSettings, NetworkSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=3, help="user's sets, each drawn anew")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--largest", type=int, default=400, help="images of the commonest class")
    parser.add_argument("--smallest", type=int, default=40, help="images of the rarest class")
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    data = os.environ.get("MINORITY_DATA")
    if data is None:
        raise SystemExit("MINORITY_DATA names no folder with the real image sets.")
    images = read_fashion_mnist(Path(data) / "fashion_mnist", image_size=28)
    train = np.flatnonzero(np.array([part == "train" for part in images.parts]))
    settings = DownstreamSettings(steps=options.steps, network=NetworkSettings(width=8))
    sizes = np.geomspace(options.largest, options.smallest, 10).round().astype(int)
    arm = next(arm for arm in REAL_ARMS if arm.name == "oversampling")
    covered, cases, widths = 0, 0, []
    print("| draw | class | images | accuracy | predicted | interval | measured gain, mean over seeds | covered |")
    print("|---|---|---|---|---|---|---|---|")
    for draw in range(options.draws):
        rng = np.random.default_rng(draw)
        own, back = [], []
        for label, size in enumerate(sizes):
            order = rng.permutation(train[images.labels[train] == label])
            own.append(order[:size])
            back.append(order[size : 2 * size])
        users, held_back = (labelled(images, np.concatenate(part)) for part in (own, back))
        accuracy, held_out = measure_curves(
            users,
            class_names=images.class_names,
            group_names=images.class_names,
            settings=settings,
            seeds=options.seeds,
        )
        predicted = headroom(accuracy, held_out, group_names=images.class_names, images=sizes.tolist())
        gains = []
        for seed in range(options.seeds):
            rest, test = split_by_group(users.groups, seed=seed)
            more = DownstreamData(
                train=joined(users.subset(rest), held_back, share=len(rest) / len(users), seed=seed),
                validation=users.subset(test),
                test=users.subset(test),
                class_names=tuple(images.class_names),
                group_names=tuple(images.class_names),
            )
            gains.append(accuracy_by_group(arm, more, settings=settings, seed=seed) - accuracy[seed, -1])
        for place, found in enumerate(predicted):
            own_gains = np.array([gain[place] for gain in gains])
            low, high = found.interval
            hits = int(((own_gains >= low) & (own_gains <= high)).sum())
            covered, cases = covered + hits, cases + options.seeds
            widths.append(high - low)
            print(
                f"| {draw} | {found.group} | {found.images} | {found.accuracy[-1]:.1%} | {found.gain:+.1%} "
                f"| {low:+.1%} ... {high:+.1%} | {own_gains.mean():+.1%} | {hits} of {options.seeds} |"
            )
    width = np.median(widths)
    print(f"\ncovered: {covered} of {cases} group x seed cases, {covered / cases:.1%}; median width {width:.1%}")


def labelled(images: ImageSet, positions: np.ndarray) -> LabelledImages:
    """Those images with their classes, which are their groups."""
    return LabelledImages(images.images(positions), images.labels[positions], images.labels[positions])


def joined(first: LabelledImages, second: LabelledImages, *, share: float, seed: int) -> LabelledImages:
    """The first images, and the same share of the second ones of every class: twice as many of each."""
    kept = []
    for label in np.unique(second.labels):
        order = np.random.default_rng([seed, label]).permutation(np.flatnonzero(second.labels == label))
        kept.append(order[: round(share * len(order))])
    more = second.subset(np.concatenate(kept))
    return LabelledImages(
        np.concatenate([first.images, more.images]),
        np.concatenate([first.labels, more.labels]),
        np.concatenate([first.groups, more.groups]),
    )


if __name__ == "__main__":
    main()
