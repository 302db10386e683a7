import numpy as np
import pytest

from minority.runtime.image_arrays import ChosenImages, JoinedImages, choose, content_digest, content_key, join
from tests.images_on_disk import OnDisk


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(256, size=(10, 2, 3, 1)).astype(np.uint8)


INDICES = [slice(None), slice(2, 7), np.array([3, 0, 3]), np.array([-1, 2]), np.array([], dtype=np.int64)]


@pytest.mark.parametrize("indices", INDICES, ids=str)
def test_chosen_images_are_those_of_the_array(pixels, indices):
    positions = np.array([9, 4, 4, 0, 1, 2, 8])

    chosen = ChosenImages(OnDisk(pixels), positions)

    np.testing.assert_array_equal(chosen[indices], pixels[positions][indices])
    assert chosen.shape == (7, 2, 3, 1)
    assert len(chosen) == 7


@pytest.mark.parametrize("indices", INDICES, ids=str)
def test_joined_images_are_those_of_the_arrays(pixels, indices):
    parts = [OnDisk(pixels[:4]), pixels[4:4], OnDisk(pixels[4:9]), pixels[9:]]

    joined = JoinedImages(parts)

    np.testing.assert_array_equal(joined[indices], pixels[indices])
    assert joined.shape == pixels.shape
    assert len(joined) == 10


def test_a_choice_reads_nothing_before_it_is_indexed_and_then_only_what_is_asked(pixels):
    on_disk = OnDisk(pixels)

    chosen = choose(join([on_disk, pixels]), np.array([1, 12, 5]))

    assert on_disk.read == 0
    np.testing.assert_array_equal(chosen[:2], pixels[[1, 2]])
    assert on_disk.read == 1


def test_of_arrays_in_memory_come_arrays_in_memory(pixels):
    assert isinstance(choose(pixels, np.array([1])), np.ndarray)
    assert isinstance(join([pixels, pixels]), np.ndarray)
    assert not isinstance(join([pixels, OnDisk(pixels)]), np.ndarray)


def test_the_content_is_told_by_pixels_wherever_they_lie(pixels):
    other = pixels.copy()
    other[9, 1, 2, 0] ^= 1

    assert content_key(OnDisk(pixels)) == content_digest(pixels).encode()
    assert content_key(OnDisk(pixels)) != content_key(OnDisk(other))
    assert content_key(pixels) == pixels.tobytes()
