"""The pool of a pretrained backbone and its user's images have nothing in common."""

import numpy as np
import pytest

from datasets.readers.digits import read_digits
from datasets.readers.imageset import ImageSet
from datasets.splits.pool import PoolSettings, pool_and_user
from datasets.splits.stratified import SplitSettings, make_split


def image_set(**changes):
    labels = np.repeat([0, 1], [60, 40])
    settings = {
        "name": "set",
        "labels": labels,
        "groups": [f"class={label}" for label in labels],
        "source_ids": [f"set/{i}" for i in range(100)],
        "class_names": ["a", "b"],
        "image_shape": (8, 8, 1),
        "load": lambda index: np.zeros((8, 8, 1), dtype=np.uint8),
    }
    return ImageSet(**(settings | changes))


def test_pool_and_user_share_no_image_and_leave_none_out():
    digits = read_digits()

    pool, user = pool_and_user(digits, PoolSettings(fraction=0.3, seed=4))

    assert set(pool) | set(user) == set(range(len(digits)))
    assert not set(pool) & set(user)
    shares = np.bincount(digits.labels[pool]) / np.bincount(digits.labels)
    np.testing.assert_allclose(shares, 0.3, atol=0.005)


def test_the_seed_decides_and_is_no_splits_seed():
    labels = read_digits().labels
    again, _ = pool_and_user(read_digits(), PoolSettings(seed=0))
    other, _ = pool_and_user(read_digits(), PoolSettings(seed=1))
    first, _ = pool_and_user(read_digits(), PoolSettings(seed=0))
    test = make_split(labels, SplitSettings(test_fraction=0.5, seed=0)).test

    assert first.tolist() == again.tolist() != other.tolist()
    # A split of the same seed is another draw: about half of its test images lie in the pool.
    assert 0.4 < len(set(test) & set(first)) / len(test) < 0.6


def test_the_makers_test_images_are_never_in_the_pool():
    parts = ["test" if i % 5 == 0 else "train" for i in range(100)]

    pool, user = pool_and_user(image_set(parts=parts), PoolSettings(fraction=0.5))

    assert not [i for i in pool if parts[i] == "test"]
    assert len(pool) == 40
    assert set(pool) | set(user) == set(range(100))


def test_an_identity_is_on_one_side():
    identities = [f"person {i // 4}" for i in range(100)]

    pool, user = pool_and_user(image_set(identities=identities), PoolSettings(fraction=0.5))

    assert len(pool) > 20
    assert not {identities[i] for i in pool} & {identities[i] for i in user}


@pytest.mark.parametrize("wrong", [{"fraction": 0.0}, {"fraction": 1.0}, {"seed": -1}])
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match="PoolSettings"):
        PoolSettings(**wrong)


def test_validation_each_takes_as_many_of_rare_classes():
    labels = np.repeat([0, 1, 2], [200, 200, 200])

    split = make_split(labels, SplitSettings(test_fraction=0.5, validation_each=10, imbalance=30, seed=3))

    assert np.bincount(labels[split.validation]).tolist() == [10, 10, 10]
    assert np.bincount(labels[split.train]).tolist() == [90, 16, 3]
    assert not set(split.validation) & (set(split.train) | set(split.test))


def test_validation_that_leaves_nothing_to_train_on_is_refused():
    labels = np.repeat([0, 1], [100, 12])

    with pytest.raises(ValueError, match=r"validation_each takes 6 images of every class, and leaves none of 1"):
        make_split(labels, SplitSettings(test_fraction=0.5, validation_each=6))
