"""Differences over training draws: coverage, the rule of verdicts, the choice on validation."""

import numpy as np
import pytest

from benchmarks.absent_cells.tables import verdict as verdict_in_points
from benchmarks.draws.verdict_over_draws import DrawAnswers, DrawDifference, best_on_validation, figure, over_draws

PARTS = np.repeat([0, 1, 2], 40)


def answers(accuracy, *, seed, seeds=3, parts=PARTS):
    rng = np.random.default_rng(seed)
    return DrawAnswers(right=rng.random((seeds, len(parts))) < accuracy, parts=parts)


def test_an_equal_pair_differs_by_nothing():
    arms = [answers(0.7, seed=draw) for draw in range(5)]

    found = over_draws(arms, arms)

    assert (found.mean, found.low, found.high) == (0.0, 0.0, 0.0)
    assert found.verdict == "does not"


def test_a_large_gain_in_every_draw_pays():
    evaluated = [answers(0.95, seed=draw) for draw in range(5)]
    rivals = [answers(0.6, seed=100 + draw) for draw in range(5)]

    found = over_draws(evaluated, rivals)

    assert found.low > 0.2
    assert found.verdict == "pays"
    assert found.mean == pytest.approx(np.mean([figure(a) - figure(b) for a, b in zip(evaluated, rivals, strict=True)]))


def test_one_good_draw_among_bad_ones_decides_nothing():
    evaluated = [answers(accuracy, seed=draw) for draw, accuracy in enumerate((0.95, 0.6, 0.75, 0.55, 0.7))]
    rivals = [answers(0.68, seed=50 + draw) for draw in range(5)]

    assert over_draws(evaluated, rivals).verdict == "not decided"


def test_four_draws_decide_nothing_however_large_the_gain():
    evaluated = [answers(0.95, seed=draw) for draw in range(4)]
    rivals = [answers(0.3, seed=50 + draw) for draw in range(4)]

    found = over_draws(evaluated, rivals)

    assert found.low > 0.3
    assert found.verdict == "not decided"


def test_one_draw_has_no_interval():
    found = over_draws([answers(0.9, seed=0)], [answers(0.5, seed=1)])

    assert np.isnan([found.low, found.high]).all()


def test_the_interval_covers_the_spread_between_draws_as_students_t_would():
    # Draws that differ by far more than seeds and images do: the interval must be near that of a t test over draws.
    rates = np.array([0.2, 0.4, 0.6, 0.8, 0.5])
    parts = np.zeros(400, dtype=np.int64)
    evaluated = [answers(rate, seed=draw, seeds=1, parts=parts) for draw, rate in enumerate(rates)]
    rivals = [DrawAnswers(right=np.zeros((1, 400), dtype=bool), parts=parts)] * 5

    found = over_draws(evaluated, rivals)

    reach = 2.776 * rates.std(ddof=1) / 5**0.5
    assert found.high - found.low == pytest.approx(2 * reach, rel=0.2)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.001, 0.2, "pays"),
        (-0.001, 0.2, "not decided"),
        (-0.05, 0.009, "does not"),
        (-0.05, 0.011, "not decided"),
        (float("nan"), float("nan"), "not decided"),
    ],
)
def test_the_verdict_follows_from_the_interval_alone(low, high, verdict):
    assert DrawDifference(mean=0.0, low=low, high=high, by_draw=(0.0,) * 5).verdict == verdict
    assert verdict_in_points(100 * low, 100 * high, draws=5) == verdict


def test_fewer_than_five_draws_decide_nothing():
    assert DrawDifference(mean=0.1, low=0.05, high=0.2, by_draw=(0.1,) * 4).verdict == "not decided"
    assert verdict_in_points(5.0, 20.0, draws=4) == "not decided (fewer than 5 draws)"


def test_the_best_on_validation_is_the_first_of_equals():
    assert best_on_validation({"a": 0.5, "b": 0.7, "c": 0.7}, ["c", "a", "b"]) == "c"


def test_arms_of_different_test_images_are_refused():
    with pytest.raises(ValueError, match="draw 0 were tested on different images"):
        over_draws([answers(0.5, seed=0)], [answers(0.5, seed=0, parts=PARTS[::-1].copy())])
