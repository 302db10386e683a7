"""Reports of sets: kernel distance against clean-fid, intervals, and warnings."""

import numpy as np
import pytest

from minority.evaluation import metrics
from minority.evaluation.kernel_distance import kernel_distance
from minority.evaluation.set_report import report_set


@pytest.fixture
def sets():
    rng = np.random.default_rng(0)
    return rng.normal(size=(300, 4)), rng.normal(loc=0.3, scale=1.2, size=(200, 4))


@pytest.mark.parametrize("size", [50, 1000])
def test_the_kernel_distance_is_that_of_clean_fid(sets, size):
    from cleanfid.fid import kernel_distance as oracle

    real, generated = sets
    np.random.seed(3)

    expected = oracle(real, generated, num_subsets=7, max_subset_size=size)

    found, error = kernel_distance(real, generated, subsets=7, subset_size=size, seed=3)
    assert found == pytest.approx(expected, rel=1e-6)
    assert error >= 0


def test_the_kernel_distance_of_equal_distributions_is_zero_within_its_error():
    rng = np.random.default_rng(0)

    value, error = kernel_distance(rng.normal(size=(500, 3)), rng.normal(size=(500, 3)), subset_size=100)

    assert abs(value) < 0.02
    assert error < 0.02


def test_one_image_has_no_kernel_distance():
    with pytest.raises(ValueError, match="two images"):
        kernel_distance(np.zeros((1, 2)), np.zeros((5, 2)))


def test_the_report_agrees_with_the_single_metrics(sets):
    real, generated = sets
    expected = metrics.set_metrics(real, generated, k=5).as_dict()

    found = report_set(real, generated, k=5).figures

    for name in ("avg_knn", "lof", "rarity_score", "precision", "recall", "density", "coverage", "fid"):
        assert found[name].value == pytest.approx(expected[name], rel=1e-9), name
        assert found[name].low <= found[name].value <= found[name].high, name
    assert found["yield"].value <= min(found["rare"].value, found["precision"].value)


def test_the_interval_of_a_share_is_as_wide_as_chance(sets):
    real, generated = sets

    precision = report_set(real, generated, draws=1000).figures["precision"]

    width = 2 * 1.96 * (precision.value * (1 - precision.value) / 200) ** 0.5
    assert precision.high - precision.low == pytest.approx(width, rel=0.2)


def test_copies_of_real_images_are_no_yield(sets):
    real, _ = sets
    rarest = real[metrics.rarest(real, share=0.2)]

    figures = report_set(real, rarest).figures

    assert figures["copies"].value == 1
    assert figures["yield"].value == 0


def test_spatial_features_give_an_sfid(sets):
    real, generated = sets

    assert report_set(real, real, spatial=(real, real)).figures["sfid"].value == pytest.approx(0, abs=1e-6)
    assert "sfid" not in report_set(real, generated).figures


FIGURES = {
    "avg_knn",
    "lof",
    "rarity_score",
    "precision",
    "recall",
    "density",
    "coverage",
    "fid",
    "fid_rare",
    "kid",
    "sfid",
    "rare",
    "copies",
    "yield",
}


def test_every_figure_has_an_interval_around_it_which_more_images_make_narrower(sets):
    rng = np.random.default_rng(1)
    real, many = sets[0], rng.normal(loc=0.3, scale=1.2, size=(1600, 4))
    many[:400] = real[rng.integers(len(real), size=400)]  # some copies

    few, wide = (
        report_set(real, many[chosen], spatial=(real, many[chosen])) for chosen in (slice(0, None, 16), slice(None))
    )

    for report in (few, wide):
        assert set(report.figures) == FIGURES
        for name, figure in report.figures.items():
            assert np.isfinite(figure).all(), name
            assert figure.low <= figure.value <= figure.high, name
            assert figure.low < figure.high or figure.value in (0, 1), name
    # Sixteen times the images: a quarter of the width. Shares of real images have as many as before; the kernel
    # distance's subsets are no smaller where there are enough images.
    for name in FIGURES - {"recall", "coverage", "kid"}:
        ratio = (few.figures[name].high - few.figures[name].low) / (wide.figures[name].high - wide.figures[name].low)
        assert 1.5 < ratio < 12, name


@pytest.mark.parametrize(
    ("num_real", "num_generated", "named"),
    [
        (99, 200, ["99 real images are too few"]),
        (300, 99, ["99 generated images are too few"]),
        (100, 100, []),
        (50, 60, ["50 real images are too few", "60 generated images are too few"]),
    ],
)
def test_the_set_that_is_too_small_is_the_one_that_is_named(sets, num_real, num_generated, named):
    real, generated = sets

    told = [
        warning for warning in report_set(real[:num_real], generated[:num_generated]).warnings if "too few" in warning
    ]

    assert [warning.partition(":")[0] for warning in told] == named


def test_small_sets_are_warned_of(sets):
    real, generated = sets
    assert report_set(real, generated).warnings == []

    few = report_set(real[:40], generated[:20]).warnings
    wide = report_set(np.tile(real, 80), np.tile(generated, 80)).warnings

    assert any("40 real images are too few" in warning for warning in few)
    assert any("singular covariance of 320 features" in warning for warning in wide)
    assert any("fid_rare" in warning for warning in wide)


def test_sets_that_cannot_be_compared_are_refused(sets):
    real, generated = sets
    with pytest.raises(ValueError, match="more than k = 5"):
        report_set(real, generated[:5])
    with pytest.raises(ValueError, match="as many features"):
        report_set(real, generated[:, :3])
