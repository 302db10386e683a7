import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from minority.selection import look_alikes as module
from minority.selection.look_alikes import look_alikes


def first_of_each_chain(features, radius):
    """By all pairs: the smallest index that can be reached by steps up to the radius."""
    near = cdist(features.astype(np.float64), features.astype(np.float64)) <= radius
    first = np.arange(len(features))
    for _ in range(len(features)):
        first = np.where(near, first[None], len(features)).min(axis=1)
    return first


def test_images_are_linked_in_chains():
    line = np.array([[0.0], [5.0], [0.4], [0.8], [5.1], [9.0]])

    assert look_alikes(line, radius=0.5).tolist() == [0, 1, 0, 0, 1, 5]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 60),
    dimensions=st.sampled_from([1, 3, 8, 40]),
    radius=st.sampled_from([0.0, 0.05, 0.6, 3.0, 100.0]),
    shift=st.sampled_from([0.0, 1000.0]),
)
def test_groups_are_those_of_all_pairs(seed, count, dimensions, radius, shift):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(1, count // 4), dimensions))
    points = centres[rng.integers(len(centres), size=count)] + 0.1 * rng.normal(size=(count, dimensions)) + shift
    points[1::7] = points[: len(points[1::7])]  # exact copies among them
    points = points.astype(np.float32)

    np.testing.assert_array_equal(look_alikes(points, radius=radius), first_of_each_chain(points, radius))


def test_parts_of_any_size_find_the_same_groups(monkeypatch):
    rng = np.random.default_rng(0)
    points = (rng.normal(size=(12, 6))[rng.integers(12, size=400)] + 0.05 * rng.normal(size=(400, 6))).astype(
        np.float32
    )
    expected = first_of_each_chain(points, 0.12)
    monkeypatch.setattr(module, "_IMAGES_AT_ONCE", 37)
    monkeypatch.setattr(module, "_PAIRS_AT_ONCE", 100)
    monkeypatch.setattr(module, "_COMPARED_AT_ONCE", 10)

    assert len(np.unique(expected)) > 12
    np.testing.assert_array_equal(look_alikes(points, radius=0.12), expected)


def test_only_so_many_pairs_are_looked_at_together_however_many_there_are(monkeypatch):
    points = np.random.default_rng(0).normal(scale=1e-3, size=(500, 8))
    sizes = []
    pairs_of = module._pairs_along_few_directions

    def watched(*arguments):
        for pairs in pairs_of(*arguments):
            sizes.append(len(pairs))
            yield pairs

    monkeypatch.setattr(module, "_pairs_along_few_directions", watched)
    monkeypatch.setattr(module, "_PAIRS_AT_ONCE", 2000)

    assert look_alikes(points, radius=1.0).tolist() == [0] * 500
    assert sum(sizes) == 500 * 499 // 2
    assert max(sizes) <= 2000


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_have_no_pairs(count):
    assert look_alikes(np.zeros((count, 3)), radius=1.0).tolist() == list(range(count))
