import numpy as np
import pytest

from datasets.readers.images.screening import Screening, screen


@pytest.fixture
def parts(make_image_set):
    """Training and test part of one set, ten images each of two classes; pixels may be set, images damaged."""
    images = make_image_set({("a", "a"): 10, ("b", "b"): 10})
    pixels = images.images(range(20))
    damaged = set()

    def load(index):
        if index in damaged:
            raise OSError(f"place/{index} broke\noff")
        return pixels[index]

    whole = type(images)(**{**images.__dict__, "load": load})
    split = {"train": whole.subset(range(0, 20, 2)), "test": whole.subset(range(1, 20, 2))}
    return split, pixels, damaged


def test_images_that_cannot_be_read_are_told_in_every_part(parts):
    split, _, damaged = parts
    damaged |= {4, 5, 19}

    found = screen(split)

    assert found.unreadable == {
        "train": {2: "place/4 broke off"},
        "test": {2: "place/5 broke off", 9: "place/19 broke off"},
    }
    assert found.num_equal_sets == 0
    assert found.to_notes() == []


def test_an_image_of_another_size_cannot_be_read(make_image_set):
    images = make_image_set({("a", "a"): 3})
    odd = type(images)(**{**images.__dict__, "load": lambda index: np.zeros((8, 8 + (index == 1), 1), np.uint8)})

    found = screen({"train": odd})

    assert list(found.unreadable["train"]) == [1]
    assert "resize or remove it" in found.unreadable["train"][1]


def test_equal_images_are_counted_and_those_in_two_parts_named(parts):
    split, pixels, damaged = parts
    pixels[6] = pixels[2]  # both train
    pixels[8] = pixels[0]
    pixels[13] = pixels[0]  # train, train, test
    pixels[17] = pixels[15]  # both test
    pixels[12] = pixels[10]
    damaged.add(12)  # not equal to anything

    found = screen(split)

    assert (found.num_equal_sets, found.num_equal_across_parts) == (3, 1)
    assert found.example == ("toy/00000", "toy/00013")
    assert found.to_notes() == [
        "3 sets of images are equal pixel by pixel, 1 of them in two parts, e.g. 'toy/00000' and 'toy/00013'."
    ]


def test_of_equal_images_in_one_part_the_first_two_are_named(parts):
    split, pixels, _ = parts
    pixels[15] = pixels[11]
    pixels[18] = pixels[16]

    assert screen(split).example == ("toy/00016", "toy/00018")


def test_a_set_without_a_readable_image_is_no_error(parts):
    split, _, damaged = parts
    damaged |= set(range(20))

    found = screen(split | {"validation": split["train"].subset([])})

    assert sum(map(len, found.unreadable.values())) == 20
    assert found == Screening(unreadable=found.unreadable)
