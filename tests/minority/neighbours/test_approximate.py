"""Neighbours among many points by faiss, held against the exact ones."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from minority.neighbours import approximate, widest_balls
from minority.neighbours.approximate import ApproximateIndex, Graph, connect
from minority.neighbours.index import ExactIndex
from minority.neighbours.reference import RealReference
from minority.neighbours.stored import read_reference, reference_arrays

K = 5


@pytest.fixture(scope="module")
def points():
    """Points near a surface of 4 dimensions in 24, and a few far from everything."""
    rng = np.random.default_rng(0)
    spread = rng.normal(size=(6000, 4)) @ rng.normal(size=(4, 24)) + 0.05 * rng.normal(size=(6000, 24))
    spread[:5] *= 20
    spread[100] = spread[101]  # a copy
    return spread.astype(np.float32)


@pytest.fixture(scope="module")
def graph(points):
    return connect(points, k=K)


@pytest.fixture(scope="module")
def both(points, graph):
    exact = RealReference.fit(points, k=K)
    return exact, RealReference.fit(points, k=K, index=ApproximateIndex(points, graph))


def test_the_recall_that_is_told_holds_for_other_points(points, both):
    exact, approximate_one = both
    told = approximate_one.index.accuracy

    true, found = ExactIndex(points).of_training(K)[0], approximate_one.index.of_training(K)[0]
    hits = [len(set(a) & set(b)) / K for a, b in zip(true.indices.tolist(), found.indices.tolist(), strict=True)]
    excess = approximate_one.of_training.knn_distance / exact.of_training.knn_distance - 1

    assert told.recall >= 0.99
    assert told.rare_recall >= 0.99
    assert told.sample == 512
    assert np.mean(hits) == pytest.approx(told.recall, abs=0.01)
    assert excess.min() > -1e-5
    assert excess.mean() == pytest.approx(told.overestimate, abs=2e-3)


def test_what_is_missed_makes_distances_larger_and_realism_smaller_never_the_reverse(both):
    exact, found = both
    rng = np.random.default_rng(1)
    evaluated = exact.features[rng.integers(6000, size=400)] + rng.normal(scale=0.3, size=(400, 24)).astype(np.float32)

    true, near = exact.locate(evaluated), found.locate(evaluated)

    assert (near.knn_distance >= true.knn_distance * (1 - 1e-5)).all()
    assert (near.nearest_distance >= true.nearest_distance * (1 - 1e-5)).all()
    # Radii of the reference are overestimated where its neighbours are missed.
    assert (near.realism <= true.realism * (1 + found.index.accuracy.worst + 1e-5)).all()
    assert np.mean(np.isclose(near.realism, true.realism, rtol=1e-4)) > 0.97
    assert np.mean((near.realism >= 1) == (true.realism >= 1)) > 0.99
    assert np.mean(np.isclose(near.rarity, true.rarity, rtol=1e-4)) > 0.97
    assert np.mean(near.nearest == true.nearest) > 0.99
    assert np.median(np.abs(near.lof / true.lof - 1)) < 1e-3


def test_a_copy_has_distance_nought_and_is_no_neighbour_of_itself(points, both):
    _, found = both

    assert found.of_training.nearest_distance[100] == 0
    assert found.of_training.nearest[100] == 101
    assert found.locate(points[7:8]).nearest_distance[0] == 0
    assert (found.of_training.nearest != np.arange(6000)).all()


def test_what_a_point_gets_does_not_depend_on_the_others_of_its_batch(points, both):
    _, found = both
    evaluated = points[:64] * np.float32(1.01)

    together = found.locate(evaluated)
    alone = [found.locate(evaluated[i : i + 1]) for i in range(64)]

    for name, values in together._asdict().items():
        np.testing.assert_array_equal(values, np.concatenate([getattr(one, name) for one in alone]))


def test_the_nearest_of_some_points_is_found_wherever_it_lies(points, graph):
    index = ApproximateIndex(points, graph)
    members = np.zeros(6000, dtype=bool)
    members[[3, 4000]] = True

    found = index.nearest_among(points[:50], members)

    true = np.minimum(*(np.linalg.norm(points[:50].astype(float) - points[i], axis=1) for i in (3, 4000)))
    np.testing.assert_allclose(found, true, rtol=1e-5)
    assert np.isinf(index.nearest_among(points[:3], np.zeros(6000, dtype=bool))).all()


def test_the_nearest_of_many_points_is_right_where_it_is_in_view_and_else_no_nearer_than_it_is(
    points, graph, monkeypatch
):
    monkeypatch.setattr(approximate, "_FEW_MEMBERS", 100)
    index, asked = ApproximateIndex(points, graph), points[:200] + np.float32(0.01)
    every_third, far = np.arange(6000) % 3 == 0, points[:, 0] > np.quantile(points[:, 0], 0.9)
    gaps = cdist(asked.astype(np.float64), points.astype(np.float64))
    farthest_in_view = np.sort(gaps, axis=1)[:, graph.in_view - 1]

    for members, share in ((every_third, 1.0), (far, 0.2)):
        found, true = index.nearest_among(asked, members), gaps[:, members].min(axis=1)

        in_view = true < farthest_in_view
        assert in_view.mean() > share - 0.1
        assert np.mean(np.isclose(found[in_view], true[in_view], rtol=1e-5)) > 0.97
        assert (found >= true * (1 - 1e-5)).all()
        assert np.isfinite(found).all()
        assert np.median(found / true) < 1.05


def test_the_same_points_are_linked_in_the_same_way_by_any_number_of_threads(points, graph):
    faiss = pytest.importorskip("faiss")
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(4)
    try:
        again = connect(points, k=K)
        assert faiss.omp_get_max_threads() == 4
    finally:
        faiss.omp_set_num_threads(before)

    np.testing.assert_array_equal(again.links, graph.links)
    assert again.in_view == graph.in_view


def test_many_equal_points_are_counted_as_found_whichever_of_them_is(points):
    equal = points[:3000].copy()
    equal[::100] = equal[0]

    exact = RealReference.fit(equal, k=K)
    index = ApproximateIndex(equal, connect(equal, k=K))
    found = RealReference.fit(equal, k=K, index=index)

    assert index.accuracy.recall >= 0.99
    np.testing.assert_array_equal(found.of_training.knn_distance[::100], 0)
    assert np.mean(np.isclose(found.of_training.knn_distance, exact.of_training.knn_distance, rtol=1e-4)) > 0.99


def test_neighbours_in_tight_clusters_far_apart_are_found():
    rng = np.random.default_rng(0)
    centres = 100 * rng.normal(size=(10, 1, 16))
    tight = (centres + 1e-3 * rng.normal(size=(10, 300, 16))).reshape(3000, 16).astype(np.float32)

    index = ApproximateIndex(tight, connect(tight, k=K))
    near, _ = index.of_training(K)

    assert index.accuracy.recall >= 0.99
    np.testing.assert_allclose(near.distances, ExactIndex(tight).of_training(K)[0].distances, rtol=1e-3)


@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_features_of_any_size_are_linked(points, factor):
    sized = points[:2000] * np.float32(factor)

    index = ApproximateIndex(sized, connect(sized, k=K))

    near, _ = index.of_training(K)
    np.testing.assert_allclose(near.distances, ExactIndex(sized).of_training(K)[0].distances, rtol=1e-4)


def test_only_equal_points_have_neighbours_at_distance_nought():
    equal = np.ones((2000, 8), dtype=np.float32)

    index = ApproximateIndex(equal, connect(equal, k=K))
    near, radii = index.of_training(K)

    assert not near.distances.any()
    assert not radii.any()
    assert (index.accuracy.recall, index.accuracy.rare_recall, index.accuracy.worst) == (1, 1, 0)


def test_a_graph_and_features_in_files_give_the_same_as_in_memory(points, graph, monkeypatch, tmp_path):
    held = ApproximateIndex(points, graph)
    np.save(tmp_path / "features.npy", points)
    np.save(tmp_path / "links.npy", graph.links)
    monkeypatch.setattr(widest_balls, "_CHUNK", 1000)
    features, links = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("features", "links"))

    mapped = ApproximateIndex(features, Graph(links, graph.in_view))

    for a, b in zip(held.nearest(points[:300]), mapped.nearest(points[:300]), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(held.of_training(K)[0], mapped.of_training(K)[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_features_of_other_kinds_of_numbers_are_taken_as_32_bits(points, dtype):
    other = (points[:1500] / 100).astype(dtype)

    index = ApproximateIndex(other, connect(other, k=K))

    exact = ExactIndex(other.astype(np.float32)).of_training(K)[0]
    np.testing.assert_allclose(index.of_training(K)[0].distances, exact.distances, rtol=1e-4)


def test_more_neighbours_than_ratios_are_asked_of_are_found(points, graph):
    index = ApproximateIndex(points, graph)

    near, radii = index.of_training(40)

    exact = ExactIndex(points).of_training(40)[0]
    assert np.mean(np.isclose(near.distances, exact.distances, rtol=1e-4)) > 0.95
    np.testing.assert_array_equal(radii, near.distances[:, -1])


def test_a_stored_reference_evaluates_as_the_fitted_one(points, both):
    _, fitted = both

    read = read_reference(reference_arrays(fitted, fitted.index), points)

    evaluated = points[:20] + np.float32(0.1)
    for a, b in zip(fitted.locate(evaluated), read.locate(evaluated), strict=True):
        np.testing.assert_array_equal(a, b)
    assert read.index.accuracy == fitted.index.accuracy
    with pytest.raises(ValueError, match=r"graph is of 6000 points of 24 features, got \(100, 24\)"):
        read_reference(reference_arrays(fitted, fitted.index), points[:100])
