"""Choosing candidates that differ, look-alikes, random projections and quantiles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minority.selection.choice import KEPT, LOOK_ALIKE, QUOTA_FULL, REFUSED, Reviewed, Spread, choose
from minority.selection.diversity import k_centre, mean_nearest_distance, projected
from minority.selection.quantiles import lower_limit, quantile_among


def passing(count):
    return {name: np.ones(count, dtype=bool) for name in ("rare", "valid", "new", "label_kept")}


def test_the_farthest_goes_first_and_each_next_is_the_farthest_from_all_before():
    line = np.array([[0.0], [1.0], [2.0], [10.0], [4.0]])

    assert k_centre(line, 5).tolist() == [3, 0, 4, 2, 1]


def test_what_is_kept_already_counts():
    line = np.array([[0.0], [2.0], [9.0]])

    # 0 is 10 away from what is kept; after it 2 is 2 away from 0, and 9 only 1 from 10.
    assert k_centre(line, 3, kept=np.array([[10.0]])).tolist() == [0, 1, 2]
    assert k_centre(line, 3, kept=np.array([[0.0]])).tolist() == [2, 1, 0]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_no_choice_covers_the_candidates_twice_as_well(seed, count):
    from itertools import combinations

    points = np.random.default_rng(seed).normal(size=(9, 2))
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)

    chosen = k_centre(points, count)

    radius = distances[:, chosen].min(axis=1).max()
    best = min(distances[:, list(some)].min(axis=1).max() for some in combinations(range(9), count))
    assert len(set(chosen.tolist())) == count
    assert radius <= 2 * best + 1e-9


def farthest_first(points, count, kept, spacing):
    """By all distances at every step."""
    chosen = [] if kept is not None else [int(np.argmax(np.linalg.norm(points - points.mean(axis=0), axis=1)))]
    centres = list(points[chosen]) if kept is None else list(kept)
    while len(chosen) < min(count, len(points)):
        gaps = np.linalg.norm(points[:, None] - np.stack(centres)[None], axis=2).min(axis=1)
        gaps[chosen] = -1.0
        if spacing is not None and gaps.max() <= spacing:
            break
        chosen.append(int(np.argmax(gaps)))
        centres.append(points[chosen[-1]])
    return chosen


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 40),
    dimensions=st.sampled_from([1, 3, 32]),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    shift=st.sampled_from([0.0, 1e3]),
    spacing=st.sampled_from([None, 0.0, 0.5]),
    with_kept=st.booleans(),
    rounded=st.booleans(),
)
def test_the_choice_is_that_of_all_distances(seed, count, dimensions, scale, shift, spacing, with_kept, rounded):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(60, dimensions)) * scale + shift
    points = np.round(points) if rounded else points  # many ties and copies
    kept = points[:3] + 0.25 if with_kept else None

    chosen = k_centre(points, count, kept=kept, spacing=spacing)

    assert chosen.tolist() == farthest_first(points, count, kept, spacing)


@pytest.mark.parametrize("count", [0, 3, 10])
def test_no_more_are_chosen_than_there_are(count):
    assert len(k_centre(np.eye(4), count)) == min(4, count)
    assert len(k_centre(np.empty((0, 2)), count)) == 0


def test_a_quota_is_filled_with_different_ones_first():
    features = np.array([[0.0, 0], [0.01, 0], [0.02, 0], [5, 0], [0, 5]])
    spread = Spread(features, rounds=np.zeros(5, dtype=int))

    kept, reasons = choose(passing(5), np.zeros(5, dtype=int), quotas={0: 3}, spread=spread)

    assert kept[3]
    assert kept[4]
    assert kept[:3].sum() == 1
    assert reasons.count(QUOTA_FULL) == 2


def test_a_choice_ends_at_the_first_that_lies_as_near_as_the_spacing():
    line = np.array([[0.0], [1.0], [10.0], [5.0]])

    assert k_centre(line, 4, spacing=1.0).tolist() == [2, 0, 3]
    assert k_centre(line, 4, spacing=0.5).tolist() == [2, 0, 3, 1]
    assert k_centre(line, 4, kept=np.array([[0.5]]), spacing=4.5).tolist() == [2]
    assert k_centre(np.zeros((3, 1)), 3, spacing=0.0).tolist() == [0]


def test_look_alikes_are_refused_even_where_the_quota_has_room():
    features = np.array([[0.0], [0.1], [7.0]])
    spread = Spread(features, rounds=np.zeros(3, dtype=int), spacing=0.5)

    kept, reasons = choose(passing(3), np.zeros(3, dtype=int), quotas={0: 3}, spread=spread)

    assert kept.sum() == 2
    assert sorted(reasons) == sorted([KEPT, LOOK_ALIKE, KEPT])


def test_candidates_of_another_label_are_never_look_alikes():
    spread = Spread(np.array([[0.0], [0.1]]), rounds=np.zeros(2, dtype=int), spacing=1.0)

    kept, _ = choose(passing(2), np.array([0, 1]), quotas={0: 1, 1: 1}, spread=spread)

    assert kept.all()


def test_a_group_without_a_quota_gets_nothing():
    kept, reasons = choose(passing(3), np.array([0, 1, 1]), quotas={1: 1})

    assert kept.tolist() == [False, True, False]
    assert reasons == [QUOTA_FULL, KEPT, QUOTA_FULL]


def test_what_people_refuse_is_never_kept_and_a_filter_s_reason_stays():
    rows = passing(4) | {"new": np.array([False, True, True, True])}
    reviewed = Reviewed(refused=np.array([True, True, False, False]), stages=np.zeros(4, dtype=np.int64))

    kept, reasons = choose(rows, np.zeros(4, dtype=int), quotas={0: 1}, reviewed=reviewed)

    assert kept.tolist() == [False, False, True, False]
    assert reasons == ["copy of a training image", REFUSED, KEPT, QUOTA_FULL]


def test_a_lower_stage_is_chosen_before_a_higher_one_in_the_order_given():
    reviewed = Reviewed(refused=np.zeros(5, dtype=bool), stages=np.array([2, 0, 1, 0, 1]))

    kept, _ = choose(passing(5), np.zeros(5, dtype=int), quotas={0: 3}, reviewed=reviewed)

    assert kept.tolist() == [False, True, True, True, False]


def test_stages_come_before_rounds_where_samples_are_to_differ():
    features = np.array([[0.0], [50.0], [1.0], [2.0]])
    spread = Spread(features, rounds=np.array([0, 0, 1, 1]))
    reviewed = Reviewed(refused=np.zeros(4, dtype=bool), stages=np.array([1, 1, 0, 0]))

    kept, _ = choose(passing(4), np.zeros(4, dtype=int), quotas={0: 2}, spread=spread, reviewed=reviewed)

    assert kept.tolist() == [False, False, True, True]


def test_a_later_round_fills_what_earlier_ones_left_of_the_quota():
    features = np.array([[0.0], [10.0], [20.0], [30.0], [40.0], [50.0]])
    spread = Spread(features, rounds=np.array([0, 0, 1, 1, 1, 1]))

    kept, reasons = choose(passing(6), np.zeros(6, dtype=int), quotas={0: 5}, spread=spread)

    assert kept[:2].all()
    assert kept.sum() == 5
    assert reasons.count(QUOTA_FULL) == 1


def test_only_the_gap_to_the_nearest_kept_one_makes_a_look_alike():
    spread = Spread(np.array([[0.0], [10.0], [4.0], [9.5]]), rounds=np.array([0, 0, 1, 1]), spacing=1.0)

    kept, reasons = choose(passing(4), np.zeros(4, dtype=int), quotas={0: 4}, spread=spread)

    assert kept.tolist() == [True, True, True, False]
    assert reasons[3] == LOOK_ALIKE


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 8))
def test_later_rounds_change_nothing_that_earlier_ones_kept(seed, early, quota):
    rng = np.random.default_rng(seed)
    features, labels = rng.normal(size=(20, 3)), rng.integers(0, 2, 20)
    rounds = np.repeat([0, 1], [early, 20 - early])
    quotas = {0: quota, 1: quota}

    whole, _ = choose(passing(20), labels, quotas=quotas, spread=Spread(features, rounds, spacing=0.3))
    part, _ = choose(
        passing(early), labels[:early], quotas=quotas, spread=Spread(features[:early], rounds[:early], spacing=0.3)
    )

    assert whole[:early].tolist() == part.tolist()
    assert all(whole[labels == label].sum() <= quota for label in (0, 1))


def test_a_set_that_repeats_itself_has_small_gaps():
    assert mean_nearest_distance(np.array([[0.0], [0.0], [3.0]])) == pytest.approx(1.0)
    assert np.isnan(mean_nearest_distance(np.zeros((1, 2))))


def test_random_projections_keep_distances_and_do_not_depend_on_the_batch():
    features = np.random.default_rng(0).normal(size=(40, 300)).astype(np.float32)

    short = projected(features)

    true = np.linalg.norm(features[:20] - features[20:], axis=1)
    # The squared length of a projection to d dimensions has relative variance 2 / d.
    assert np.abs(np.linalg.norm(short[:20] - short[20:], axis=1) / true - 1).mean() < 3 * (2 / 32) ** 0.5 / 2
    np.testing.assert_array_equal(short[7:8], projected(features[7:8]))
    np.testing.assert_array_equal(projected(features[:, :5]), features[:, :5])
    assert projected(features[:0]).shape == (0, 32)


def test_quantiles_count_what_is_smaller_and_half_the_ties():
    found = quantile_among(np.array([-1.0, 1.0, 2.5, np.inf]), np.array([0.0, 1.0, 1.0, 3.0]))

    assert found.tolist() == [0.0, 0.5, 0.75, 1.0]
    with pytest.raises(ValueError, match="NaN or none"):
        quantile_among(np.zeros(1), np.empty(0))


def test_a_lower_limit_loses_no_more_than_its_quantile():
    values = np.random.default_rng(0).normal(size=37)

    for quantile in (0.0, 0.01, 0.05, 0.3):
        assert (values < lower_limit(values, quantile=quantile)).mean() <= quantile


def one_by_one(here, features, *, quota, spacing):
    """The same choice by its definition: each candidate in farthest-first order against all kept so far."""
    kept, alike = [], []
    for i in k_centre(features[here], len(here)).tolist():
        if kept and np.linalg.norm(features[here[i]] - features[kept], axis=1).min() <= spacing:
            alike.append(int(here[i]))
        elif len(kept) < quota:
            kept.append(int(here[i]))
    return kept, alike


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.floats(0, 2))
def test_the_choice_stops_early_and_is_that_of_the_whole_order(seed, quota, spacing):
    features = np.random.default_rng(seed).normal(size=(30, 2))
    spread = Spread(features, rounds=np.zeros(30, dtype=int), spacing=spacing)

    _, reasons = choose(passing(30), np.zeros(30, dtype=int), quotas={0: quota}, spread=spread)

    kept, alike = one_by_one(np.arange(30), features, quota=quota, spacing=spacing)
    assert {i for i, reason in enumerate(reasons) if reason == KEPT} == set(kept)
    assert {i for i, reason in enumerate(reasons) if reason == LOOK_ALIKE} == set(alike)
