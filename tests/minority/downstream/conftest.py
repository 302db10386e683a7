"""Small downstream problems whose answers are known."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from minority.downstream.data import DownstreamData, LabelledImages

DIGITS = tuple("0123456789")


def _part(images, labels, chosen):
    return LabelledImages(images[chosen], labels[chosen], labels[chosen])


@pytest.fixture(scope="session")
def planted_digits():
    """Long-tailed digits, and three sources whose worth is known: true scans, shuffled labels, mere copies."""
    scans = load_digits()
    images = np.round(scans.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = scans.target.astype(np.int64)
    rng = np.random.default_rng(0)
    train, validation, test, fresh, copies = [], [], [], [], []
    for label in range(10):
        mine = rng.permutation(np.flatnonzero(labels == label))
        size = round(90 * 20 ** (-label / 9))
        held_out, rest = mine[:70], mine[70:]
        test.append(held_out[:60])
        validation.append(held_out[60:])
        train.append(rest[:size])
        missing = 90 - size
        fresh.append(np.resize(rest[size:], missing) if missing else rest[:0])
        copies.append(np.resize(rest[:size], missing) if missing else rest[:0])
    fresh, copies = np.concatenate(fresh), np.concatenate(copies)
    shuffled = rng.permutation(labels[fresh])
    return DownstreamData(
        train=_part(images, labels, np.concatenate(train)),
        validation=_part(images, labels, np.concatenate(validation)),
        test=_part(images, labels, np.concatenate(test)),
        class_names=DIGITS,
        group_names=DIGITS,
        synthetic={
            "fresh": _part(images, labels, fresh),
            "shuffled": LabelledImages(images[fresh], shuffled, shuffled),
            "copies": _part(images, labels, copies),
        },
    )


def bars(groups, *, seed):
    """Two classes of 8x8 images: a faint upright or level bar. Groups add a loud corner that is no part of the class.

    Group = 2 * class + corner.
    """
    rng = np.random.default_rng(seed)
    labels, corner = groups // 2, groups % 2
    pixels = rng.normal(90, 28, size=(len(groups), 8, 8))
    at = rng.integers(0, 8, size=len(groups))
    for i, (label, place) in enumerate(zip(labels, at, strict=True)):
        if label:
            pixels[i, :, place] += 55
        else:
            pixels[i, place, :] += 55
    pixels[corner == 1, :3, :3] = 250
    pixels[corner == 0, :3, :3] = 10
    return LabelledImages(pixels.clip(0, 255).astype(np.uint8)[..., None], labels, groups)


@pytest.fixture(scope="session")
def spurious_bars():
    """Bars whose corner gives the class away in 96 % of the training images, and in half of the others."""

    def groups(counts):
        return np.repeat(np.arange(4), counts)

    return DownstreamData(
        train=bars(groups([480, 20, 20, 480]), seed=0),
        validation=bars(groups([100] * 4), seed=1),
        test=bars(groups([200] * 4), seed=2),
        class_names=("level", "upright"),
        group_names=("level dark", "level bright", "upright dark", "upright bright"),
    )


@pytest.fixture(scope="session")
def rare_bars():
    """Bars without any shortcut; upright ones are 24 times rarer in training."""

    def part(counts, seed):
        classes = np.repeat(np.arange(2), counts)
        corner = np.random.default_rng(seed).integers(0, 2, size=len(classes))
        drawn = bars(2 * classes + corner, seed=seed)
        return LabelledImages(drawn.images, drawn.labels, drawn.labels)

    return DownstreamData(
        train=part([960, 40], 3),
        validation=part([100, 100], 4),
        test=part([300, 300], 5),
        class_names=("level", "upright"),
        group_names=("level", "upright"),
    )
