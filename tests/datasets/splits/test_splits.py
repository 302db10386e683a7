import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.readers.digits import read_digits
from datasets.splits.stratified import SplitSettings, long_tail, make_split, stratified_split, validation_from


def counts(labels, indices, num_classes=10):
    return np.bincount(labels[indices], minlength=num_classes).tolist()


def test_without_further_settings_a_fifth_tests_and_nothing_is_left_out():
    labels = np.repeat([0, 1], [400, 40])

    split = make_split(labels, SplitSettings())

    assert counts(labels, split.test, num_classes=2) == [80, 8]
    assert sum(map(len, (split.train, split.validation, split.test))) == 440


def test_the_digits_get_a_tail_of_107_down_to_5():
    digits = read_digits()

    settings = SplitSettings(test_fraction=0.4, imbalance=20.0)
    split = make_split(digits.labels, settings, class_names=digits.class_names)

    sizes = np.array(counts(digits.labels, split.train)) + counts(digits.labels, split.validation)
    assert sizes.tolist() == [107, 77, 55, 39, 28, 20, 15, 10, 7, 5]
    assert counts(digits.labels, split.validation) == [10, 7, 5, 3, 2, 2, 1, 1, 0, 0]
    assert counts(digits.labels, split.test) == [71, 73, 71, 73, 72, 73, 72, 72, 70, 72]


@given(
    sizes=st.lists(st.integers(5, 60), min_size=1, max_size=5),
    settings=st.builds(
        SplitSettings,
        test_fraction=st.floats(0.2, 0.6),
        validation_fraction=st.floats(0, 0.5),
        imbalance=st.one_of(st.none(), st.just(1.0), st.floats(1, 2)),
        seed=st.integers(0, 5),
    ),
)
def test_parts_are_disjoint_and_every_class_is_in_train_and_test(sizes, settings):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))

    split = make_split(labels, settings)

    together = np.concatenate([split.train, split.validation, split.test])
    assert len(np.unique(together)) == len(together)
    assert min(counts(labels, split.train, len(sizes))) > 0
    assert min(counts(labels, split.test, len(sizes))) > 0
    if settings.imbalance is None:
        assert len(together) == len(labels)


def test_the_same_seed_gives_the_same_split_and_another_seed_another():
    labels = np.repeat(np.arange(4), 50)

    first, again, other = (make_split(labels, SplitSettings(seed=seed)) for seed in (3, 3, 4))

    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(first, part), getattr(again, part))
    assert not np.array_equal(first.test, other.test)


def test_the_tail_leaves_the_test_part_alone():
    labels = np.repeat(np.arange(4), 50)

    with_tail, without = (make_split(labels, SplitSettings(imbalance=imbalance)) for imbalance in (20.0, None))

    np.testing.assert_array_equal(with_tail.test, without.test)


def test_a_tail_is_scaled_down_until_every_class_has_enough():
    # Class 1 has 10 images, a hundredth of class 0's share would be too few elsewhere: 10 / (4 ** -0.5) = 20.
    labels = np.repeat(np.arange(3), [100, 10, 50])

    tail = long_tail(labels, np.arange(160), imbalance=4.0, seed=0)

    assert counts(labels, tail, 3) == [20, 10, 5]


def test_validation_is_rounded_down_exactly():
    labels = np.repeat(np.arange(2), [100, 9])

    train, validation = validation_from(labels, np.arange(109), fraction=0.29, seed=0)

    assert counts(labels, validation, 2) == [29, 2]
    assert len(train) + len(validation) == 109


def test_parts_are_sorted_positions():
    labels = np.random.default_rng(1).integers(0, 3, 90)

    rest, test = stratified_split(labels, test_fraction=0.4, seed=0)

    np.testing.assert_array_equal(np.sort(np.concatenate([rest, test])), np.arange(90))
    assert (np.diff(rest) > 0).all()
    assert (np.diff(test) > 0).all()


def test_a_class_without_images_is_named():
    labels = np.array([0, 0, 0, 2, 2, 2])

    with pytest.raises(ValueError, match="whole set has no image of class cow; add"):
        make_split(labels, SplitSettings(), class_names=["cat", "cow", "dog"])
    with pytest.raises(ValueError, match="whole set has no image of class 1"):
        make_split(labels, SplitSettings())
    with pytest.raises(ValueError, match="whole set has no classes"):
        make_split(labels[:0], SplitSettings())


@pytest.mark.parametrize(
    ("sizes", "settings", "message"),
    [
        ([10, 1], SplitSettings(test_fraction=0.4), "test part has no image of class 1"),
        ([10, 1], SplitSettings(test_fraction=0.6), "training part has no image of class 1"),
        ([10, 10], SplitSettings(imbalance=100.0), "imbalance 100 leaves class 1 no image"),
    ],
)
def test_a_part_that_would_lose_a_class_is_refused(sizes, settings, message):
    with pytest.raises(ValueError, match=message):
        make_split(np.repeat(np.arange(2), sizes), settings)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("test_fraction", 0.0), ("test_fraction", 1.0), ("validation_fraction", -0.1), ("validation_fraction", 1.0),
     ("imbalance", 0.5), ("imbalance", float("nan")), ("imbalance", float("inf")), ("seed", -1)],
)  # fmt: skip
def test_a_setting_that_makes_no_sense_is_named(setting, value):
    with pytest.raises(ValueError, match=f"SplitSettings.{setting} must be"):
        SplitSettings(**{setting: value})


def test_a_tail_that_grows_is_refused():
    with pytest.raises(ValueError, match=r"imbalance must be at least 1, got 0\.5"):
        long_tail(np.array([0, 1]), np.arange(2), imbalance=0.5, seed=0)
