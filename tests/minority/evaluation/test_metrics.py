"""Set metrics against their plain definitions, and scikit-learn."""

import warnings

import numpy as np
import pytest
from cleanfid.fid import frechet_distance as clean_fid_distance
from scipy import linalg
from sklearn.neighbors import LocalOutlierFactor

from minority.evaluation import metrics

K = 3


@pytest.fixture
def sets():
    rng = np.random.default_rng(0)
    return rng.normal(size=(40, 4)), rng.normal(loc=0.5, scale=1.5, size=(30, 4))


def distance(a, b):
    return float(np.sqrt(((a - b) ** 2).sum()))


def radius(points, i):
    return sorted(distance(points[i], points[j]) for j in range(len(points)) if j != i)[K - 1]


def test_avg_knn_is_the_mean_of_the_smallest_distances(sets):
    real, generated = sets

    expected = [np.mean(sorted(distance(g, r) for r in real)[:K]) for g in generated]

    np.testing.assert_allclose(metrics.avg_knn(real, generated, k=K), expected)


def test_rarity_score_is_the_smallest_neighbourhood_around_an_image(sets):
    real, generated = sets
    radii = [radius(real, i) for i in range(len(real))]

    inside, scores = metrics.rarity_score(real, generated, k=K)

    for g, is_inside, score in zip(generated, inside, scores, strict=True):
        around = [radii[i] for i, r in enumerate(real) if distance(g, r) <= radii[i]]
        assert is_inside == bool(around)
        assert score == pytest.approx(min(around, default=np.inf))
    assert 0 < inside.mean() < 1


def test_precision_recall_density_and_coverage_follow_their_definitions(sets):
    real, generated = sets
    r_real = [radius(real, i) for i in range(len(real))]
    r_generated = [radius(generated, j) for j in range(len(generated))]
    hits = np.array([[distance(g, r) <= r_real[i] for i, r in enumerate(real)] for g in generated])
    back = np.array([[distance(g, r) <= r_generated[j] for r in real] for j, g in enumerate(generated)])

    precision, recall = metrics.precision_recall(real, generated, k=K)
    density, coverage = metrics.density_coverage(real, generated, k=K)

    assert precision == pytest.approx(np.mean([row.any() for row in hits]))
    assert recall == pytest.approx(np.mean([back[:, i].any() for i in range(len(real))]))
    assert density == pytest.approx(hits.sum() / (K * len(generated)))
    assert coverage == pytest.approx(np.mean([hits[:, i].any() for i in range(len(real))]))


def test_lof_is_scikit_learn_s(sets):
    real, generated = sets

    expected = -LocalOutlierFactor(n_neighbors=K, novelty=True).fit(real).score_samples(generated)

    np.testing.assert_allclose(metrics.local_outlier_factor(real, generated, k=K), expected)


def test_frechet_distance_follows_its_formula_and_is_clean_fid_s(sets):
    real, generated = sets
    a, b = np.cov(real, rowvar=False), np.cov(generated, rowvar=False)
    off = real.mean(axis=0) - generated.mean(axis=0)

    found = metrics.frechet_distance(real, generated)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # clean-fid calls scipy in an old way
        theirs = clean_fid_distance(real.mean(axis=0), a, generated.mean(axis=0), b)
    assert found == pytest.approx(off @ off + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real), rel=1e-6)
    assert found == pytest.approx(theirs, rel=1e-6)
    assert metrics.frechet_distance(real, real) == pytest.approx(0, abs=1e-6)


def _duplicates(rng):
    return np.repeat(rng.normal(size=(12, 4)), 5, axis=0), np.repeat(rng.normal(size=(10, 4)) + 0.5, 5, axis=0)


def _one_class(rng):
    return rng.normal(size=(40, 4)) * 1e-3 + 5, rng.normal(size=(30, 4)) * 1e-3 - 5


def _constant_features(rng):
    steady = np.full((40, 3), 0.5)
    return np.c_[rng.normal(size=(40, 4)), steady], np.c_[rng.normal(size=(30, 4)) + 0.5, steady[:30] + 1]


def _one_feature_in_three_copies(rng):
    return np.repeat(rng.normal(size=(40, 2)), 3, axis=1), np.repeat(rng.normal(size=(30, 2)) * 2, 3, axis=1)


def _fewer_images_than_features(rng):
    return rng.normal(size=(30, 64)), rng.normal(size=(20, 64)) + 0.3


def _two_images(rng):
    return rng.normal(size=(2, 5)), rng.normal(size=(2, 5))


def _one_point_against_many(rng):
    return np.ones((40, 4)), rng.normal(size=(30, 4))


def _one_point_against_another(rng):
    return np.ones((40, 4)), np.zeros((30, 4))


def _far_from_the_origin(rng):
    return rng.normal(size=(40, 4)) + 1e4, rng.normal(size=(30, 4)) * 1.5 + 1e4


def _features_of_very_different_scales(rng):
    scales = np.logspace(-4, 4, 4)
    return rng.normal(size=(40, 4)) * scales, rng.normal(size=(30, 4)) * 1.5 * scales


@pytest.mark.parametrize(
    "make",
    [
        _duplicates,
        _one_class,
        _constant_features,
        _one_feature_in_three_copies,
        _fewer_images_than_features,
        _two_images,
        _one_point_against_many,
        _one_point_against_another,
        _far_from_the_origin,
        _features_of_very_different_scales,
    ],
    ids=lambda make: make.__name__.strip("_"),
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_frechet_distance_of_degenerate_sets_is_clean_fid_s_and_exact(make, dtype):
    real, generated = (features.astype(dtype) for features in make(np.random.default_rng(0)))
    wide = [features.astype(np.float64) for features in (real, generated)]
    (mean, x), (other, y) = ((f.mean(axis=0), (f - f.mean(axis=0)) / np.sqrt(len(f) - 1)) for f in wide)
    # tr (x'x y'y)^(1/2) is the sum of the singular values of x y', with no root of a singular matrix on the way.
    cross = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    exact = np.square(mean - other).sum() + np.square(x).sum() + np.square(y).sum() - 2 * cross

    found = metrics.frechet_distance(real, generated)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy's root warns clean-fid of singular matrices
        theirs = clean_fid_distance(mean, np.cov(wide[0], rowvar=False), other, np.cov(wide[1], rowvar=False))
    assert found == pytest.approx(exact, rel=1e-6)
    assert found == pytest.approx(theirs, rel=1e-6)


def test_frechet_distance_ignores_features_that_never_change(sets):
    real, generated = sets

    def constant_beside(features):
        return np.c_[features, np.full((len(features), 60), 0.5)]

    assert metrics.frechet_distance(constant_beside(real), constant_beside(generated)) == pytest.approx(
        metrics.frechet_distance(real, generated), rel=1e-9
    )


def test_the_rarest_lie_farthest_from_the_others(sets):
    real, _ = sets
    mean = [np.mean(sorted(distance(real[i], real[j]) for j in range(40) if j != i)[:K]) for i in range(40)]

    assert metrics.rarest(real, share=0.1, k=K).tolist() == np.argsort(mean)[::-1][:4].tolist()


def test_a_copy_of_the_real_set_scores_as_the_real_set(sets):
    real, _ = sets

    result = metrics.set_metrics(real, real.copy(), k=K)

    assert (result.precision, result.recall, result.coverage, result.inside) == (1, 1, 1, 1)
    assert result.fid == pytest.approx(0, abs=1e-6)
    assert result.fid_rare > 0.1
    assert set(result.as_dict()) >= {"avg_knn", "lof", "rarity_score", "density"}


def test_all_metrics_at_once_are_those_that_each_function_gives(sets):
    real, generated = sets

    result = metrics.set_metrics(real, generated, k=K)

    inside, rarity = metrics.rarity_score(real, generated, k=K)
    precision, recall = metrics.precision_recall(real, generated, k=K)
    density, coverage = metrics.density_coverage(real, generated, k=K)
    rarest = metrics.rarest(real, share=0.1, k=K)
    expected = {
        "avg_knn": metrics.avg_knn(real, generated, k=K).mean(),
        "lof": metrics.local_outlier_factor(real, generated, k=K).mean(),
        "rarity_score": rarity[inside].mean(),
        "inside": inside.mean(),
        "precision": precision,
        "recall": recall,
        "density": density,
        "coverage": coverage,
        "fid": metrics.frechet_distance(real, generated),
        "fid_rare": metrics.frechet_distance(real[rarest], generated),
    }
    assert result.as_dict() == pytest.approx(expected)


def test_at_least_two_images_are_the_rarest(sets):
    assert len(metrics.rarest(sets[0], share=0.01, k=K)) == 2
    assert len(metrics.rarest(sets[0], share=1, k=K)) == 40


def test_images_far_outside_have_no_rarity_score(sets):
    real, generated = sets

    result = metrics.set_metrics(real, generated + 100, k=K)

    assert (result.inside, result.precision, result.coverage) == (0, 0, 0)
    assert np.isnan(result.rarity_score)


@pytest.mark.parametrize(
    ("real", "generated", "message"),
    [
        (np.zeros((9, 2)), np.zeros((9, 3)), "features of one D"),
        (np.zeros((3, 2)), np.zeros((9, 2)), "more than k = 3 images"),
        (np.zeros((9, 2)), np.zeros((2, 2)), "more than k = 3 images"),
    ],
)
def test_sets_that_cannot_be_compared_are_refused(real, generated, message):
    with pytest.raises(ValueError, match=message):
        metrics.set_metrics(real, generated, k=K)


def test_an_empty_share_is_refused(sets):
    with pytest.raises(ValueError, match="share must lie"):
        metrics.rarest(sets[0], share=0)


@pytest.mark.parametrize(("features", "generated"), [(4, 200), (24, 400)])
def test_the_error_of_the_frechet_distance_is_its_spread_over_many_sets(features, generated):
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(features, features))

    def draw(count, scale):
        return scale * rng.normal(size=(count, features)) @ mix

    real = draw(500, 1.0)
    found = [metrics.frechet_distance_and_error(real, draw(generated, 1.2)) for _ in range(100)]

    values, errors = np.array(found).T
    # The spread of 100 has an error of 7 %. With many features the error is known to be on the safe side.
    assert 0.8 < errors.mean() / values.std(ddof=1) < 1.5


def test_the_frechet_distance_with_and_without_its_error_is_one():
    rng = np.random.default_rng(1)
    real, few = rng.normal(size=(60, 40)), rng.normal(size=(20, 40))  # fewer images than features

    value, error = metrics.frechet_distance_and_error(real, few)

    # Roots of eigenvalues that are 0 but for rounding differ.
    assert value == pytest.approx(metrics.frechet_distance(real, few), rel=1e-7)
    assert 0 < error < value


def test_the_error_is_that_of_small_changes_of_every_image_s_weight():
    rng = np.random.default_rng(2)
    real, generated = rng.normal(size=(300, 3)), rng.normal(0.4, 1.3, size=(40, 3))
    mean, covariance = real.mean(axis=0), np.cov(real, rowvar=False)

    def distance(weights):
        other = weights @ generated
        centred = generated - other
        spread = (weights[:, None] * centred).T @ centred
        cross = np.sqrt(np.linalg.eigvals(covariance @ spread).real).sum()
        return np.square(mean - other).sum() + np.trace(covariance) + np.trace(spread) - 2 * cross

    even, step = np.full(40, 1 / 40), 1e-6
    slopes = [(distance((1 - step) * even + step * image) - distance(even)) / step for image in np.eye(40)]

    _, error = metrics.frechet_distance_and_error(real, generated)

    # The covariance of the distance is divided by 39, that of the weights by 40.
    assert error == pytest.approx(np.std(slopes, ddof=1) / 40**0.5, rel=0.05)
