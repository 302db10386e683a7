import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits

from minority.arms import balancing_weights, build_arms, compare_arms, run_arm
from minority.classifier import ClassifierSettings
from minority.gains import paired_difference

NUM_DIGITS = 10
SETTINGS = ClassifierSettings(steps=150, width=16)  # half the default budget, to be quick
SEEDS = range(4)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclasses.dataclass
class LongTail:
    """Digits: a long-tailed training split, a test split, and the scans of neither."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    unused: tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def digits():
    scans = load_digits()
    images = np.round(scans.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = scans.target.astype(np.int64)
    rng = np.random.default_rng(0)
    test, train, unused = [], [], []
    for label in range(NUM_DIGITS):
        indices = rng.permutation(np.flatnonzero(labels == label))
        num_test, num_train = int(0.4 * len(indices)), round(107 * 20 ** (-label / 9))
        test.append(indices[:num_test])
        train.append(indices[num_test : num_test + num_train])
        unused.append(indices[num_test + num_train :])
    return LongTail(*((images[chosen], labels[chosen]) for chosen in map(np.concatenate, (train, test, unused))))


def fill_up(images, labels, *, counts):
    """As many images of each class as bring it level with the commonest, in turns where there are too few."""
    missing = counts.max() - counts
    chosen = np.concatenate([np.resize(np.flatnonzero(labels == label), missing[label]) for label in range(NUM_DIGITS)])
    return images[chosen], labels[chosen]


@pytest.fixture(scope="module")
def planted(digits):
    """Results of arms whose worth is known: fresh true scans, the same with shuffled labels, mere copies."""
    counts = np.bincount(digits.train[1])
    fresh, fresh_labels = fill_up(*digits.unused, counts=counts)
    shuffled = np.random.default_rng(0).permutation(fresh_labels)
    synthetic = {
        "fresh": (fresh, fresh_labels),
        "shuffled": (fresh, shuffled),
        "copies": fill_up(*digits.train, counts=counts),
    }
    arms = build_arms(*digits.train, synthetic=synthetic, num_classes=NUM_DIGITS)
    test_images, test_labels = digits.test
    return compare_arms(
        arms, SEEDS, test_images=test_images, test_labels=test_labels, num_classes=NUM_DIGITS, settings=SETTINGS
    )


@pytest.mark.slow
@pytest.mark.parametrize("baseline", ["real", "oversampled"])
@pytest.mark.parametrize("metric", ["balanced_accuracy", "worst_class_accuracy"])
def test_fresh_scans_of_the_rare_digits_are_found_to_help(planted, baseline, metric):
    gain = paired_difference(planted, "real+fresh", baseline=baseline, metric=metric)

    assert gain.low > 0


@pytest.mark.slow
def test_shuffled_labels_are_found_to_harm(planted):
    harm = paired_difference(planted, "real+shuffled", baseline="oversampled", metric="balanced_accuracy")

    assert harm.high < 0


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy"])
def test_copies_of_training_scans_are_found_to_be_worth_no_more_than_oversampling(planted, metric):
    # Both arms draw from the same distribution; 99% keeps chance from failing this on another platform.
    nothing = paired_difference(planted, "real+copies", baseline="oversampled", metric=metric, confidence=0.99)

    assert not nothing.excludes_zero
    assert abs(nothing.mean) < 0.03


def small_set(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.random.default_rng(0).integers(256, size=(len(labels), 8, 8, 1)).astype(np.uint8)
    return images, labels


def test_the_arms_are_real_oversampled_and_one_a_source():
    images, labels = small_set([6, 2])
    extra = images[:4] // 2, np.ones(4, dtype=np.int64)
    nothing = images[:0], labels[:0]

    arms = build_arms(images, labels, synthetic={"plain": extra, "minority": nothing}, num_classes=2)

    assert [arm.name for arm in arms] == ["real", "oversampled", "real+plain", "real+minority"]
    real, oversampled, plain, minority = arms
    assert [arm.sampling_weights is None for arm in arms] == [True, False, True, True]
    assert np.array_equal(oversampled.images, real.images)
    assert np.array_equal(plain.images, np.concatenate([images, extra[0]]))
    assert np.bincount(plain.labels).tolist() == [6, 6]  # the balance comes from the synthetic images
    assert np.array_equal(minority.labels, labels)


def test_oversampling_draws_every_class_equally_often():
    labels = np.array([0, 0, 0, 0, 0, 1, 2, 2])

    weights = balancing_weights(labels, num_classes=3)

    np.testing.assert_allclose(np.bincount(labels, weights=weights), 1 / 3)


def test_a_class_without_real_images_is_refused():
    images, labels = small_set([4, 0, 3, 0])
    with pytest.raises(ValueError, match=r"classes \[1, 3\] have no real training image"):
        build_arms(images, labels, synthetic={}, num_classes=4)


def test_synthetic_images_of_another_kind_are_refused():
    images, labels = small_set([4, 4])
    with pytest.raises(ValueError, match="plain images must be uint8"):
        build_arms(images, labels, synthetic={"plain": (images[:, :4], labels)}, num_classes=2)
    with pytest.raises(ValueError, match="plain labels must be 8 integers"):
        build_arms(images, labels, synthetic={"plain": (images, labels[:3])}, num_classes=2)
    with pytest.raises(ValueError, match=r"plain labels must lie in \[0, 2\), got 1 ... 2"):
        build_arms(images, labels, synthetic={"plain": (images, labels + 1)}, num_classes=2)


def test_running_arms_together_gives_what_running_each_alone_gives():
    images, labels = small_set([6, 3])
    quick = ClassifierSettings(steps=5, width=8, batch_size=8)
    judged_on = {"test_images": images, "test_labels": labels, "num_classes": 2, "settings": quick}
    arms = build_arms(images, labels, synthetic={"plain": (images, labels)}, num_classes=2)

    together = compare_arms(arms, [0, 1], **judged_on)
    alone = [run_arm(arm, seed, **judged_on).rows(arm.name, seed=seed) for arm in reversed(arms) for seed in (1, 0)]

    order = ["arm", "seed", "metric"]
    pd.testing.assert_frame_equal(
        together.sort_values(order, ignore_index=True),
        pd.concat(alone).sort_values(order, ignore_index=True),
    )
