"""Images as an array that is read where it is indexed."""

from dataclasses import replace

import numpy as np
import pytest

from datasets.readers.images.image_array import ImageArray
from datasets.readers.images.image_digest import digest_of_pixels, remember_pixels
from datasets.readers.imageset import ImageSet
from minority.runtime.image_arrays import content_digest

PIXELS = np.random.default_rng(0).integers(0, 256, (50, 6, 5, 3), dtype=np.uint8)


@pytest.fixture
def reads():
    return []


@pytest.fixture
def images(reads):
    def load(index):
        reads.append(index)
        return PIXELS[index]

    names = [f"{i}.png" for i in range(50)]
    labels = np.zeros(50, dtype=np.int64)
    return ImageSet(
        name="made",
        labels=labels,
        groups=["a"] * 50,
        source_ids=names,
        class_names=["a"],
        image_shape=(6, 5, 3),
        load=load,
    )


@pytest.mark.parametrize("held_bytes", [0, 2**20])
@pytest.mark.parametrize(
    "indices", [slice(3, 9), np.array([4, 4, -1]), np.arange(50) % 7 == 0, slice(None), np.array([], dtype=np.int64)]
)
def test_indexing_gives_what_numpy_gives(images, held_bytes, indices):
    array = ImageArray(images, held_bytes=held_bytes)

    assert (array.shape, array.dtype, len(array)) == ((50, 6, 5, 3), np.uint8, 50)
    np.testing.assert_array_equal(array[indices], PIXELS[indices])


def test_a_small_set_is_read_once_and_a_large_one_only_where_it_is_asked(images, reads):
    small, large = ImageArray(images), ImageArray(images, held_bytes=50 * 90 - 1)
    assert reads == []

    large[np.array([7, 2])]
    assert reads == [7, 2]

    reads.clear()
    small[:2]
    small[3:]
    assert sorted(reads) == list(range(50))


def test_its_digest_is_that_of_the_pixels_and_reads_nothing_that_is_known(images, reads):
    array = ImageArray(images)
    known = np.stack([np.frombuffer(digest_of_pixels(image), dtype=np.uint8) for image in PIXELS])

    assert array.digest == content_digest(PIXELS)
    reads.clear()
    assert ImageArray(remember_pixels(images, known)).digest == content_digest(PIXELS)
    assert reads == []
    assert content_digest(PIXELS[::-1]) != content_digest(PIXELS)


def test_an_image_that_differs_from_its_known_digest_has_changed(images):
    known = np.zeros((50, 16), dtype=np.uint8)

    with pytest.raises(ValueError, match=r"^4\.png has changed since this run first read it"):
        ImageArray(remember_pixels(images, known), held_bytes=0)[4:5]


def test_an_image_that_cannot_be_read_is_named(images):
    def load(index):
        raise ValueError(f"{index}.png ends too early.")

    with pytest.raises(ValueError, match=r"^0\.png ends too early\.$"):
        ImageArray(replace(images, load=load), held_bytes=0)[:40]
