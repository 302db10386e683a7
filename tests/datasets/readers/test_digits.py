import pickle

import numpy as np
import pytest
from sklearn.datasets import load_digits

from datasets.readers.digits import read_digits
from datasets.readers.imageset import ImageSet


@pytest.fixture(scope="module")
def digits():
    return read_digits()


def test_every_scan_is_there_with_its_ink_scaled_to_bytes(digits):
    scans = load_digits()

    pixels = digits.images(range(len(digits)))

    assert digits.image_shape == (8, 8, 1)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels[..., 0], np.round(scans.images * 255 / 16))
    np.testing.assert_array_equal(digits.labels, scans.target)


def test_labels_groups_and_sources_describe_the_same_scan(digits):
    assert digits.class_names == [str(digit) for digit in range(10)]
    assert digits.source_ids[17] == "digits/00017"
    assert digits.groups[17] == f"digit={digits.labels[17]}"


def test_a_subset_is_the_chosen_images_in_the_chosen_order(digits):
    chosen = [1700, 3, 42]

    subset = digits.subset(chosen).subset([2, 0])

    assert subset.source_ids == ["digits/00042", "digits/01700"]
    np.testing.assert_array_equal(subset.images([0, 1]), digits.images([42, 1700]))
    np.testing.assert_array_equal(subset.labels, digits.labels[[42, 1700]])


def test_no_images_are_an_empty_stack(digits):
    assert digits.images([]).shape == (0, 8, 8, 1)
    assert len(digits.subset([])) == 0


def test_painting_over_an_image_does_not_change_the_set(digits):
    digits.image(0)[:] = 0

    assert digits.image(0).any()


def test_a_set_can_be_sent_to_another_process(digits):
    sent = pickle.loads(pickle.dumps(digits.subset([5])))

    np.testing.assert_array_equal(sent.image(0), digits.image(5))


@pytest.mark.parametrize("index", [-1, 1797])
def test_an_image_that_does_not_exist_is_an_error(digits, index):
    with pytest.raises(IndexError, match="has 1797 images"):
        digits.image(index)
    with pytest.raises(IndexError, match="has 1797 images"):
        digits.subset([index])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": []}, "one label, group and source id an image"),
        ({"labels": np.array([2])}, "names 2 classes"),
        ({"labels": np.array([-1])}, "labels -1..-1"),
    ],
)
def test_a_set_that_contradicts_itself_is_refused(change, message):
    parts = {
        "name": "toy",
        "labels": np.array([0]),
        "groups": ["a"],
        "source_ids": ["toy/0"],
        "class_names": ["a", "b"],
        "image_shape": (2, 2, 1),
        "load": lambda index: np.zeros((2, 2, 1), dtype=np.uint8),
    }
    with pytest.raises(ValueError, match=message):
        ImageSet(**parts | change)
