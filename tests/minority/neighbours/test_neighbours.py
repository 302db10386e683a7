"""Neighbours, local outlier factor, realism and balls against scikit-learn and their plain definitions."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors

from minority.evaluation import metrics
from minority.evaluation.set_report import report_set
from minority.neighbours import pairwise, tiles
from minority.neighbours.pairwise import Balls, LargestRatio, Nearest, Reached, ask, in_balls, nearest
from minority.neighbours.reference import RealReference

RTOL = 1e-6


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles and spare candidates so small that every seam is crossed."""
    monkeypatch.setattr(tiles, "_ROWS", 7)
    monkeypatch.setattr(tiles, "_COLUMNS", 11)
    monkeypatch.setattr(pairwise, "_SPARE", 2)
    monkeypatch.setattr(tiles, "_PAIRS", 5)
    monkeypatch.setattr(tiles, "_EXACT_VALUES", 30)


def _random(rng):
    return rng.normal(size=(60, 4)), rng.normal(size=(25, 4)) * 1.5


def _duplicates(rng):
    real = np.repeat(rng.normal(size=(12, 3)), 5, axis=0)
    return real, np.concatenate([real[:9], rng.normal(size=(9, 3))])


def _constant_features(rng):
    real, evaluated = _random(rng)
    real[:, 1:], evaluated[:, 1:] = 3.0, 3.0
    return real, evaluated


def _far_from_the_origin(rng):
    real, evaluated = _random(rng)
    return real + 1e6, evaluated + 1e6


def _one_point_many_times(rng):
    return np.ones((40, 3)), np.ones((5, 3))


def _tight_cluster_far_away(rng):
    real = np.concatenate([rng.normal(size=(50, 3)) * 1e-6 + 1e3, rng.normal(size=(10, 3))])
    return real, np.concatenate([rng.normal(size=(10, 3)) * 1e-6 + 1e3, rng.normal(size=(5, 3))])


def _one_class(rng):
    return rng.normal(size=(30, 3)), rng.normal(size=(20, 3)) * 0.1 + 40


def _fewer_images_than_features(rng):
    return rng.normal(size=(12, 64)), rng.normal(size=(8, 64))


CASES = [
    _random,
    _duplicates,
    _constant_features,
    _far_from_the_origin,
    _one_point_many_times,
    _tight_cluster_far_away,
    _one_class,
    _fewer_images_than_features,
]


@pytest.fixture(params=CASES, ids=lambda case: case.__name__.strip("_"))
def sets(request):
    return request.param(np.random.default_rng(0))


def plain_distances(a, b):
    return np.sqrt(((a[:, None].astype(np.float64) - b[None].astype(np.float64)) ** 2).sum(axis=2))


def plain_radii(real, k):
    distances = plain_distances(real, real)
    np.fill_diagonal(distances, np.inf)
    return np.sort(distances, axis=1)[:, k - 1]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_distances_are_those_of_the_plain_definition_and_of_scikit_learn(sets, small_tiles, dtype):
    real, evaluated = (features.astype(dtype) for features in sets)

    distances, indices = nearest(evaluated, real, k=5)

    np.testing.assert_allclose(distances, np.sort(plain_distances(evaluated, real), axis=1)[:, :5], rtol=RTOL)
    np.testing.assert_allclose(
        np.take_along_axis(plain_distances(evaluated, real), indices, axis=1), distances, rtol=RTOL
    )
    # The tree measures plain differences; scikit-learn's brute force loses digits far from the origin.
    tree = NearestNeighbors(n_neighbors=5, algorithm="kd_tree").fit(real.astype(np.float64))
    np.testing.assert_allclose(distances, tree.kneighbors(evaluated.astype(np.float64))[0], rtol=RTOL)


def test_the_reference_leaves_each_image_out_of_its_own_neighbours(sets, small_tiles):
    real, _ = sets
    expected, _ = NearestNeighbors(n_neighbors=5, algorithm="kd_tree").fit(real).kneighbors()

    own = RealReference.fit(real, k=5).of_training

    np.testing.assert_allclose(own.knn_distance, expected.mean(axis=1), rtol=RTOL)
    assert (own.nearest != np.arange(len(real))).all()


@pytest.mark.parametrize("k", [1, 5, 500])
def test_the_local_outlier_factor_is_that_of_scikit_learn(sets, small_tiles, k):
    real, evaluated = sets
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about k beyond the set, and about duplicates
        oracle = LocalOutlierFactor(n_neighbors=k, novelty=True, algorithm="kd_tree").fit(real)
        own = LocalOutlierFactor(n_neighbors=k, algorithm="kd_tree").fit(real)

    found = RealReference.fit(real, k=k)

    np.testing.assert_allclose(found.locate(evaluated).lof, -oracle.score_samples(evaluated), rtol=RTOL)
    np.testing.assert_allclose(found.of_training.lof, -own.negative_outlier_factor_, rtol=RTOL)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_realism_is_the_plain_definition(sets, small_tiles, dtype):
    real, evaluated = (features.astype(dtype) for features in sets)
    distances, radii = plain_distances(evaluated, real), plain_radii(real, 5)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(distances > 0, radii[None] / distances, np.inf)

    question = LargestRatio(radii)
    ask(evaluated, real, question)
    np.testing.assert_allclose(question.ratios, ratio.max(axis=1), rtol=RTOL)
    np.testing.assert_allclose(RealReference.fit(real, k=5).locate(evaluated).realism, ratio.max(axis=1), rtol=RTOL)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_membership_of_balls_is_the_plain_definition(sets, small_tiles, dtype):
    real, evaluated = (features.astype(dtype) for features in sets)
    reference = RealReference.fit(real, k=3)
    expected = plain_distances(evaluated, real) <= reference.radii[None]

    smallest = np.where(expected, reference.radii[None], np.inf).min(axis=1)
    balls = in_balls(evaluated, real, reference.radii)
    np.testing.assert_array_equal(balls.smallest, smallest)
    np.testing.assert_array_equal(balls.counts, expected.sum(axis=1))
    np.testing.assert_array_equal(balls.covered, expected.any(axis=0))
    np.testing.assert_array_equal(reference.locate(evaluated).rarity, smallest)


def test_several_questions_have_in_one_pass_the_answers_that_each_has_alone(sets, small_tiles):
    real, evaluated = sets
    distances, radii = plain_distances(evaluated, real), np.linspace(0.0, 2.0, len(evaluated))
    own = plain_radii(real, 3)
    near, ratio, balls, reached = Nearest(3), LargestRatio(own), Balls(own), Reached(radii)

    ask(evaluated, real, near, ratio, balls, reached)

    alone = LargestRatio(own)
    ask(evaluated, real, alone)
    np.testing.assert_array_equal(ratio.ratios, alone.ratios)
    np.testing.assert_array_equal(near.distances, nearest(evaluated, real, k=3)[0])
    np.testing.assert_array_equal(balls.smallest, in_balls(evaluated, real, own).smallest)
    np.testing.assert_array_equal(reached.reached, (distances <= radii[:, None]).any(axis=0))


def test_an_images_own_ball_does_not_make_it_common(small_tiles):
    real = np.concatenate([np.random.default_rng(0).normal(size=(30, 2)), [[50.0, 0.0]]])

    own = RealReference.fit(real, k=3).of_training

    assert own.rarity[-1] == np.inf
    assert own.realism[-1] < 1
    assert own.lof[-1] > 10


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 20), dtype=st.sampled_from([np.float32, np.float64]))
def test_the_verdict_on_an_image_does_not_depend_on_its_batch(seed, size, dtype):
    rng = np.random.default_rng(seed)
    real, evaluated = rng.normal(size=(40, 6)).astype(dtype), rng.normal(size=(20, 6)).astype(dtype)
    reference = RealReference.fit(real, k=4)

    together, alone = reference.locate(evaluated), reference.locate(evaluated[:size])

    for whole, part in zip(together, alone, strict=True):
        np.testing.assert_array_equal(whole[:size], part)


def test_an_exact_copy_has_distance_and_ratio_zero_wherever_it_lies():
    real = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32) + np.float32(1000)

    found = RealReference.fit(real, k=5).locate(real[:3])

    assert found.nearest.tolist() == [0, 1, 2]
    assert found.nearest_distance.tolist() == [0, 0, 0]
    assert found.copy_ratio.tolist() == [0, 0, 0]
    assert np.isinf(found.realism).all()


@pytest.mark.parametrize(
    ("evaluated", "message"), [(np.zeros((2, 3)), "same extractor"), (np.full((2, 4), np.inf), "not all finite")]
)
def test_features_that_cannot_be_evaluated_are_refused(evaluated, message):
    reference = RealReference.fit(np.random.default_rng(0).normal(size=(9, 4)), k=2)

    with pytest.raises(ValueError, match=message):
        reference.locate(evaluated)


def test_no_images_have_no_neighbours():
    found = RealReference.fit(np.eye(4), k=2).locate(np.empty((0, 4)))

    assert all(len(column) == 0 for column in found)


@pytest.mark.parametrize("k", [1, 4])
def test_precision_recall_density_and_coverage_are_their_plain_definitions(sets, small_tiles, k):
    real, generated = sets
    distances = plain_distances(generated, real)
    in_real = distances <= plain_radii(real, k)[None]
    in_generated = distances <= plain_radii(generated, k)[:, None]

    precision, recall = metrics.precision_recall(real, generated, k=k)
    density, coverage = metrics.density_coverage(real, generated, k=k)

    assert precision == pytest.approx(in_real.any(axis=1).mean(), rel=RTOL)
    assert recall == pytest.approx(in_generated.any(axis=0).mean(), rel=RTOL)
    assert density == pytest.approx(in_real.sum(axis=1).mean() / k, rel=RTOL)
    assert coverage == pytest.approx(in_real.any(axis=0).mean(), rel=RTOL)


@pytest.mark.parametrize("k", [1, 5, "all others", 500])
def test_the_neighbours_of_the_reference_are_scikit_learn_s_however_many_are_asked_for(sets, small_tiles, k):
    real, evaluated = sets
    k = len(real) - 1 if k == "all others" else k
    # The reference counts no more neighbours than an image of its own has.
    tree = NearestNeighbors(n_neighbors=min(k, len(real) - 1), algorithm="kd_tree").fit(real)

    found = RealReference.fit(real, k=k)

    np.testing.assert_allclose(
        found.locate(evaluated).knn_distance, tree.kneighbors(evaluated)[0].mean(axis=1), rtol=RTOL
    )
    np.testing.assert_allclose(found.of_training.knn_distance, tree.kneighbors()[0].mean(axis=1), rtol=RTOL)
    np.testing.assert_allclose(found.radii, tree.kneighbors()[0][:, -1], rtol=RTOL)


@pytest.mark.parametrize("k", [1, 4, "all others"])
def test_average_distance_outlier_factor_and_rarity_of_sets_are_their_plain_definitions(sets, small_tiles, k):
    real, generated = sets
    k = len(real) - 1 if k == "all others" else k
    distances, radii = plain_distances(generated, real), plain_radii(real, k)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about duplicates
        oracle = LocalOutlierFactor(n_neighbors=k, novelty=True, algorithm="kd_tree").fit(real)

    inside, rarity = metrics.rarity_score(real, generated, k=k)

    np.testing.assert_array_equal(inside, (distances <= radii).any(axis=1))
    np.testing.assert_allclose(rarity, np.where(distances <= radii, radii, np.inf).min(axis=1), rtol=RTOL)
    np.testing.assert_allclose(
        metrics.avg_knn(real, generated, k=k), np.sort(distances, axis=1)[:, :k].mean(axis=1), rtol=RTOL
    )
    np.testing.assert_allclose(
        metrics.local_outlier_factor(real, generated, k=k), -oracle.score_samples(generated), rtol=RTOL
    )


@pytest.mark.parametrize("k", [4, 5])
def test_sets_with_as_many_neighbours_as_there_are_others_are_compared_by_their_plain_definitions(small_tiles, k):
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=(k + 1, 3)), rng.normal(size=(k + 1, 3))
    distances = plain_distances(generated, real)
    in_real, in_generated = distances <= plain_radii(real, k), distances <= plain_radii(generated, k)[:, None]

    found = metrics.set_metrics(real, generated, k=k)

    assert (found.precision, found.recall) == (in_real.any(axis=1).mean(), in_generated.any(axis=0).mean())
    assert found.density == pytest.approx(in_real.sum() / (k * (k + 1)), rel=RTOL)
    assert found.coverage == in_real.any(axis=0).mean()


@pytest.mark.parametrize("k", [40, 1000])
def test_more_neighbours_than_images_are_refused_where_sets_are_compared(k):
    real = np.random.default_rng(0).normal(size=(40, 2))

    with pytest.raises(ValueError, match="more than k"):
        metrics.set_metrics(real, real, k=k)


@pytest.mark.parametrize("k", [0, 12, 1000])
@pytest.mark.parametrize(
    "metric",
    [
        lambda real, generated, k: nearest(generated, real, k=k),
        metrics.avg_knn,
        metrics.local_outlier_factor,
        metrics.rarity_score,
        metrics.precision_recall,
        metrics.density_coverage,
        lambda real, generated, k: metrics.rarest(real, k=k),
        lambda real, generated, k: report_set(real, generated, k=k),
    ],
    ids=["nearest", "average", "lof", "rarity", "precision", "density", "rarest", "report"],
)
def test_as_many_neighbours_as_images_or_none_are_refused_by_every_metric_in_one_line(metric, k):
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=(11, 2)), rng.normal(size=(30, 2))

    with pytest.raises(ValueError, match=rf"\bk\b.* {k}\b") as error:
        metric(real, generated, k=k)

    assert "\n" not in str(error.value)
    assert "broadcast" not in str(error.value)
