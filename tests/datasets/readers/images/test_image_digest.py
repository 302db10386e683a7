import pickle
from dataclasses import replace

import numpy as np
import pytest

from datasets.readers.images.image_digest import image_digest, remember_pixels
from datasets.readers.imageset import ImageSet


def some_images(count=6, *, seed=0, **changes):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 4, 5, 1), dtype=np.uint8)
    images = ImageSet(
        name="toy",
        labels=np.arange(count) % 2,
        groups=[f"class={i % 2}" for i in range(count)],
        source_ids=[f"toy/{i}" for i in range(count)],
        class_names=["cat", "dog"],
        image_shape=(4, 5, 1),
        load=pixels.__getitem__,
    )
    return replace(images, **changes)


def digest(train, validation=None):
    return image_digest({"training": train, "validation": some_images(2, seed=9) if validation is None else validation})


def test_equal_images_have_equal_digests_remembered_or_not():
    assert digest(some_images()) == digest(some_images()) == digest(remember_pixels(some_images()))
    assert len(digest(some_images())) == 64


@pytest.mark.parametrize(
    "other",
    [
        some_images(seed=1),
        some_images(5),
        some_images(labels=np.array([0, 1, 0, 1, 0, 0])),
        some_images(groups=["class=0"] * 6),
        some_images(source_ids=[f"toy/{i}" for i in (1, 0, 2, 3, 4, 5)]),
        some_images(class_names=["cat", "wolf"]),
        some_images().subset([1, 0, 2, 3, 4, 5]),
    ],
    ids=["pixels", "fewer", "labels", "groups", "ids", "class names", "order"],
)
def test_whatever_a_filter_sees_is_in_the_digest(other):
    plain = digest(some_images())

    assert digest(other) != plain
    assert digest(some_images(), other) != plain
    assert digest(some_images(), some_images(2, seed=9)) == plain


def test_an_image_moved_from_one_part_to_the_other_is_another_digest():
    images = some_images()

    assert digest(images.subset(range(5)), images.subset([5])) != digest(images.subset(range(4)), images.subset([4, 5]))


def test_one_changed_pixel_is_refused_at_the_next_reading():
    pixels = np.zeros((3, 4, 5, 1), dtype=np.uint8)
    images = remember_pixels(some_images(3, load=lambda index: pixels[index].copy()))
    before = digest(images)
    pixels[1, 2, 3, 0] ^= 1

    assert digest(images) == before  # nothing is read twice for it
    assert images.image(0).sum() == 0
    with pytest.raises(ValueError, match="toy/1 has changed since this run first read it; bring the image back"):
        images.image(1)
    with pytest.raises(ValueError, match="toy/1 has changed"):
        images.subset([1]).images([0])


def test_images_that_were_read_before_are_not_read_again_for_the_digest():
    reads = []

    def load(index):
        reads.append(index)
        return np.zeros((4, 5, 1), dtype=np.uint8)

    images = remember_pixels(some_images(3, load=load))
    images.image(2)
    digest(images)

    assert sorted(reads) == [0, 1, 2]


def test_what_is_remembered_goes_to_other_processes():
    images = remember_pixels(some_images())
    before = digest(images)

    assert digest(pickle.loads(pickle.dumps(images))) == before
