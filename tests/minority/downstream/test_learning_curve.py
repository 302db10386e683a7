"""Headroom: learning curves by group, and what they foretell."""

import numpy as np
import pytest

from minority.downstream.data import LabelledImages
from minority.downstream.learning_curve import (
    FRACTIONS,
    headroom,
    measure_curves,
    share_of_the_last_gain,
    split_by_group,
    thinned,
)
from minority.downstream.settings import DownstreamSettings, NetworkSettings

GROUPS = np.repeat([0, 1, 2], [100, 40, 7])


def power_law(*, seeds=5, floor=0.1, start=0.4, exponent=0.5, noise=0.0, groups=3):
    """Accuracies (S, F, G) whose error is floor + start * (n / n_quarter) ** -exponent."""
    rng = np.random.default_rng(0)
    error = floor + start * (np.array(FRACTIONS) / FRACTIONS[0]) ** -exponent
    return 1 - error[None, :, None] + noise * rng.standard_normal((seeds, len(FRACTIONS), groups))


def test_a_fifth_of_every_group_is_held_out_and_seeds_differ():
    rest, held_out = split_by_group(GROUPS, seed=0)
    other = split_by_group(GROUPS, seed=1)[1]

    assert np.bincount(GROUPS[held_out]).tolist() == [20, 8, 1]
    assert sorted([*rest, *held_out]) == list(range(len(GROUPS)))
    assert held_out.tolist() != other.tolist()


def test_smaller_shares_lie_in_larger_ones_and_no_group_vanishes():
    rest, _ = split_by_group(GROUPS, seed=0)
    quarter, half, whole = (thinned(GROUPS, rest, fraction=fraction) for fraction in FRACTIONS)

    assert set(quarter) < set(half) < set(whole) == set(rest)
    assert np.bincount(GROUPS[quarter]).tolist() == [20, 8, 2]


def test_an_error_that_falls_as_a_power_of_the_number_is_foretold_exactly():
    accuracy = power_law(exponent=0.5)

    found = headroom(accuracy, np.array([50, 50, 50]), group_names=["a", "b", "c"], images=[100] * 3)

    truth = 0.4 * (4**-0.5 - 8**-0.5)
    assert share_of_the_last_gain(accuracy) == pytest.approx(2**-0.5)
    assert [group.gain for group in found] == pytest.approx([truth] * 3)
    assert all(group.interval[0] < truth < group.interval[1] for group in found)
    assert {group.verdict for group in found} == {"more images can help"}


def test_a_flat_curve_far_from_perfect_names_doubtful_labels_and_one_at_the_top_says_so():
    accuracy = np.full((5, 3, 2), 0.6)
    accuracy[:, :, 1] = 0.99

    doubtful, perfect = headroom(accuracy, np.array([400, 400]), group_names=["a", "b"], images=[2000, 2000])

    assert doubtful.verdict == perfect.verdict == "more images cannot help much"
    assert "labels in doubt" in doubtful.reason
    assert "right nearly always" in perfect.reason


def test_groups_without_enough_held_out_images_are_not_evaluated():
    accuracy = power_law()
    accuracy[:, :, 2] = np.nan

    found = headroom(accuracy, np.array([50, 3, 0]), group_names=["a", "b", "c"], images=[250, 15, 2])

    assert [group.verdict for group in found] == ["more images can help", "too few to measure", "too few to measure"]
    assert np.isnan(found[1].gain)
    assert "3 held-out images a seed" in found[1].reason


def test_the_interval_covers_a_noisy_next_doubling_in_nine_of_ten_cases():
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(200):
        # 60 held-out images a seed; each accuracy is a share of them.
        error = 0.1 + 0.3 * np.array([1, 2, 4, 8]) ** -0.5
        shares = 1 - rng.binomial(60, np.tile(error, (5, 1))) / 60
        found = headroom(shares[:, :3, None], np.array([60]), group_names=["a"], images=[300])[0]
        low, high = found.interval
        covered += [low <= gain <= high for gain in shares[:, 3] - shares[:, 2]]

    assert np.mean(covered) >= 0.9


def test_curves_are_measured_on_held_out_images_alone():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [60, 30]).astype(np.int64)
    images = rng.integers(0, 100, (90, 8, 8, 1)).astype(np.uint8) + (100 * labels[:, None, None, None]).astype(np.uint8)
    told = []

    accuracy, held_out = measure_curves(
        LabelledImages(images, labels, labels),
        class_names=["dark", "bright"],
        group_names=["dark", "bright"],
        settings=DownstreamSettings(steps=40, network=NetworkSettings(width=4), record_steps=False),
        seeds=2,
        on_done=lambda done, total: told.append((done, total)),
    )

    assert accuracy.shape == (2, 3, 2)
    assert held_out.tolist() == [12, 6]
    assert told[-1] == (6, 6)
    assert accuracy[:, -1].min() > 0.9  # brightness tells the classes


@pytest.mark.parametrize(
    ("change", "message"), [({"arm": "magic"}, "knows no recipe 'magic'"), ({"seeds": 1}, "at least 2 seeds")]
)
def test_what_is_not_possible_is_refused(change, message):
    images = LabelledImages(np.zeros((4, 8, 8, 1), np.uint8), np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]))

    with pytest.raises(ValueError, match=message):
        measure_curves(images, class_names=["a", "b"], group_names=["a", "b"], settings=DownstreamSettings(), **change)
