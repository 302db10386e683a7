"""The search for sampler settings, on candidates whose yields are known."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minority.calibration import (
    CalibrationSettings,
    Measured,
    highest_yield,
    narrow,
    plan_rung,
    ratio_interval,
    reaches_floors,
    rung_sizes,
    winner,
)
from minority.calibration_space import BASELINES, CalibrationSpace, Walk, expected_cost
from minority.intervals import bootstrap_interval, wilson
from minority.sampler_settings import SamplerSettings


def search(config, yields, validity, costs, seed=0):
    """Run the rungs on Bernoulli candidates. Returns the measurements."""
    rng = np.random.default_rng(seed)
    measured = [Measured() for _ in yields]
    survivors, first = list(range(len(yields))), 0
    for size in rung_sizes(config, candidates=len(yields)):
        survivors = narrow(config, measured, survivors, to=size)
        draws = plan_rung(config, costs, survivors, first=first)
        for draw in draws:
            passed = rng.binomial(draw.count, yields[draw.candidate])
            valid = max(passed, rng.binomial(draw.count, validity[draw.candidate]))
            measured[draw.candidate] += Measured(
                samples=draw.count,
                passed=passed,
                valid=valid,
                evaluations=draw.count * costs[draw.candidate],
                diversity=1.0,
            )
        first += draws[0].count
    return measured


def test_a_far_better_candidate_is_found():
    config = CalibrationSettings(budget=200_000, candidates=30)
    yields = [0.02] * 29 + [0.2]

    measured = search(config, yields, validity=[0.9] * 30, costs=[50.0] * 30)

    assert winner(config, measured) == 29


def test_what_counts_is_what_is_kept_per_evaluation():
    config = CalibrationSettings(budget=200_000, candidates=10)
    # A quarter more of the samples for twice the cost.
    measured = search(config, [0.02] * 8 + [0.20, 0.25], validity=[0.9] * 10, costs=[50.0] * 9 + [100.0])

    assert winner(config, measured) == 8


def test_the_highest_yield_may_cost_more_and_needs_enough_samples():
    config = CalibrationSettings()
    measured = [
        Measured(samples=400, valid=380, passed=100, evaluations=8000),
        Measured(samples=120, valid=110, passed=40, evaluations=6000),
        Measured(samples=20, valid=20, passed=19, evaluations=1000),
        Measured(samples=400, valid=200, passed=190, evaluations=8000),
    ]

    assert winner(config, measured) == 0
    assert highest_yield(config, measured) == 1
    assert highest_yield(config, measured[3:]) is None


def test_a_candidate_below_the_floor_of_validity_never_wins():
    config = CalibrationSettings(budget=200_000, candidates=10)

    measured = search(config, [0.05] * 9 + [0.5], validity=[0.9] * 9 + [0.6], costs=[50.0] * 10)

    best = winner(config, measured)
    assert best is not None
    assert best < 9
    assert measured[best].valid_share >= 0.8


def test_there_is_no_winner_where_nothing_is_valid():
    config = CalibrationSettings(budget=50_000, candidates=6)

    assert winner(config, search(config, [0.1] * 6, validity=[0.2] * 6, costs=[50.0] * 6)) is None


def test_repeating_oneself_misses_the_floor_of_diversity():
    config = CalibrationSettings(diversity_floor=0.5)
    good = Measured(samples=10, valid=10, passed=5, evaluations=10, diversity=0.8)

    assert reaches_floors(config, good)
    assert not reaches_floors(config, Measured(samples=10, valid=10, passed=5, evaluations=10, diversity=0.2))
    assert not reaches_floors(config, Measured())


@settings(max_examples=50, deadline=None)
@given(
    budget=st.integers(10_000, 10**6),
    candidates=st.integers(4, 60),
    keep=st.floats(0.1, 0.9),
    cost=st.floats(1, 60),
    seed=st.integers(0, 100),
)
def test_the_budget_holds_and_everybody_draws_the_same_samples(budget, candidates, keep, cost, seed):
    config = CalibrationSettings(budget=budget, candidates=candidates, keep=keep)
    sizes = rung_sizes(config, candidates=candidates)

    measured = search(config, [0.1] * candidates, [0.9] * candidates, [cost] * candidates, seed)

    assert sizes[0] == candidates
    assert all(a > b for a, b in pairwise(sizes))
    spent = sum(m.evaluations for m in measured)
    # One sample each is the least that a rung can draw.
    share = budget * (1 - config.verification) / len(sizes)
    assert spent <= sum(max(share, size * cost) for size in sizes) + 1e-6
    assert sum(m.samples == max(x.samples for x in measured) for m in measured) == sizes[-1]


def test_the_search_starts_with_the_baselines_and_repeats_no_settings():
    space = CalibrationSpace()

    candidates = space.candidates(SamplerSettings(steps=30), limit=40, seed=1)

    assert len(candidates) == 40
    assert tuple(candidate.name for candidate in candidates[:3]) == BASELINES
    assert candidates[0].sampler.guidance == []
    assert len({candidate.name for candidate in candidates}) == 40
    assert [c.name for c in space.candidates(SamplerSettings(steps=30), limit=40, seed=1)] == [
        candidate.name for candidate in candidates
    ]


def test_a_space_smaller_than_the_limit_is_searched_whole():
    space = CalibrationSpace(walks=(Walk(),), boost=(2.0,), skip=(0.1,), scale=(), jacobian_scale=())

    assert len(space.candidates(SamplerSettings(), limit=48, seed=0)) == 4


def test_the_expected_cost_is_what_drawing_takes(tiny_backbone):
    from minority.backbones import load_backbone
    from minority.generation import draw

    backbone = load_backbone(tiny_backbone)
    walks = (Walk(steps=10), Walk(solver="dpm_solver", steps="logsnr9"))
    for candidate in CalibrationSpace(walks=walks).candidates(SamplerSettings(steps=10), limit=12, seed=0):
        drawn = draw(backbone, seed=0, indices=[0], labels=[0], settings=candidate.sampler)
        assert expected_cost(candidate.sampler) == drawn.evaluations


def test_measurements_add_up():
    both = Measured(samples=10, passed=2, valid=8, evaluations=500.0, diversity=1.0) + Measured(
        samples=30, passed=4, valid=30, evaluations=1500.0, diversity=0.6
    )

    assert (both.samples, both.passed, both.valid) == (40, 6, 38)
    assert both.diversity == pytest.approx(0.7)
    assert both.per_1000_evaluations == pytest.approx(3.0)
    low, high = both.per_1000_evaluations_interval()
    assert low < 3 < high
    assert (Measured() + Measured(samples=1)).diversity is None


def test_the_ratio_of_two_yields_has_an_interval_that_holds_it():
    ours = Measured(samples=500, passed=100, evaluations=25_000.0)
    theirs = Measured(samples=500, passed=20, evaluations=25_000.0)

    point, (low, high) = ratio_interval(ours, theirs)

    assert point == pytest.approx(5)
    assert 3 < low < 5 < high < 9
    assert ratio_interval(ours, Measured(samples=500, evaluations=25_000.0))[0] == math.inf


def test_wilson_intervals_hold_the_share_as_often_as_they_say():
    rng = np.random.default_rng(0)
    inside = 0
    for successes in rng.binomial(60, 0.1, size=1000):
        low, high = wilson(int(successes), 60)
        inside += low <= 0.1 <= high

    # 3 standard errors of a 95 % share over 1000 draws, and the interval's own error at 60 trials.
    assert 0.92 < inside / 1000 < 0.99
    assert wilson(0, 0) == (0.0, 1.0)


def test_the_bootstrap_of_a_mean_is_that_of_the_normal():
    values = np.random.default_rng(0).normal(size=400)

    low, high = bootstrap_interval(
        lambda real, generated: float(values[generated].mean()), num_real=1, num_generated=400, draws=1000
    )

    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.15)


@pytest.mark.parametrize(
    ("field", "value"),
    [("budget", 0), ("candidates", 3), ("keep", 1.0), ("finalists", 0), ("verification", 1.0), ("validity_floor", 2.0)],
)
def test_impossible_settings_are_refused(field, value):
    with pytest.raises(ValueError, match=f"CalibrationSettings.{field}"):
        CalibrationSettings(**{field: value})
