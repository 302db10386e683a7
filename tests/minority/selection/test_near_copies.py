import numpy as np

from minority.neighbours.reference import RealReference
from minority.selection.near_copies import no_near_copy

REFERENCE = RealReference.fit(np.array([[0.0], [1.0], [2.0], [30.0]]), k=2)


def test_a_candidate_on_the_limit_is_a_copy():
    place = REFERENCE.locate(np.array([[0.0], [0.25], [0.5]]))

    assert no_near_copy(place, {"nearest_distance": 0.25}).tolist() == [False, False, True]


def test_in_a_sparse_place_the_ratio_sees_a_copy_that_the_distance_lets_pass():
    place = REFERENCE.locate(np.array([[29.0], [16.0]]))

    assert no_near_copy(place, {"nearest_distance": 0.25}).tolist() == [True, True]
    assert no_near_copy(place, {"nearest_distance": 0.25, "copy_ratio": 0.5}).tolist() == [False, True]


def test_a_candidate_on_the_floor_of_the_ratio_is_new():
    place = REFERENCE.locate(np.array([[29.0]]))

    assert no_near_copy(place, {"nearest_distance": 0.25, "copy_ratio": float(place.copy_ratio[0])}).all()
