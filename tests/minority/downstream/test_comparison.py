import numpy as np
import pytest

from minority.downstream.comparison import (
    choose_arm,
    group_intervals,
    paired_difference,
    summarise,
    verdict,
)
from minority.downstream.data import LabelledImages
from minority.downstream.predictions import Predictions


def truth_of(labels, groups=None):
    labels = np.asarray(labels, dtype=np.int64)
    groups = labels if groups is None else np.asarray(groups, dtype=np.int64)
    return LabelledImages(np.zeros((len(labels), 4, 4, 1), dtype=np.uint8), labels, groups)


def answers(truth, share_right, *, seed):
    """Predictions that are right with a probability, image by image."""
    rng = np.random.default_rng(seed)
    right = rng.random(len(truth)) < share_right
    predicted = np.where(right, truth.labels, 1 - truth.labels)
    return Predictions(predicted, np.full(len(truth), 0.9, dtype=np.float32))


TRUTH = truth_of(np.repeat([0, 1], 100))


def test_the_mean_is_that_over_seeds_of_the_figure_itself():
    truth = truth_of([0, 0, 0, 0, 1, 1])
    first = Predictions(np.array([0, 0, 0, 1, 1, 0]), np.ones(6, dtype=np.float32))
    second = Predictions(np.array([0, 0, 0, 0, 1, 1]), np.ones(6, dtype=np.float32))

    found = summarise({"real": {0: first, 1: second}}, truth).set_index("metric")["mean"]

    assert found["accuracy"] == pytest.approx((4 / 6 + 1) / 2)
    assert found["balanced_accuracy"] == pytest.approx(((0.75 + 0.5) / 2 + 1) / 2)
    assert found["worst_class_accuracy"] == pytest.approx((0.5 + 1) / 2)


def test_an_arm_does_not_differ_from_itself():
    runs = {name: {s: answers(TRUTH, 0.8, seed=s) for s in range(4)} for name in ("real", "same")}

    found = paired_difference(runs, "same", baseline="real", truth=TRUTH)

    assert (found.mean, found.low, found.high) == (0, 0, 0)
    assert not found.excludes_zero


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy"])
def test_intervals_cover_the_truth_about_as_often_as_they_say(metric):
    # Arms whose accuracy moves from seed to seed; the true difference is 0.05. Few seeds: the hard case.
    covered = 0
    for world in range(60):
        rng = np.random.default_rng(world)
        runs = {
            name: {s: answers(TRUTH, base + rng.normal(0, 0.03), seed=1000 * world + 10 * s + i) for s in range(6)}
            for i, (name, base) in enumerate({"real": 0.7, "better": 0.75}.items())
        }
        found = paired_difference(runs, "better", baseline="real", truth=TRUTH, metric=metric)
        covered += found.low <= 0.05 <= found.high
    # 60 intervals of 95 %: fewer than 50 are covered with a chance below 1e-4; percentiles of 6 seeds are a bit narrow.
    assert covered >= 50


def test_the_interval_knows_the_chance_of_testing_beside_that_of_training():
    # All seeds say the same, so that only the test images could have been others.
    same = answers(TRUTH, 0.8, seed=0)
    other = answers(TRUTH, 0.8, seed=1)
    runs = {"real": dict.fromkeys(range(5), same), "other": dict.fromkeys(range(5), other)}

    found = paired_difference(runs, "other", baseline="real", truth=TRUTH, metric="accuracy")

    differs = (same.predicted == TRUTH.labels).astype(float) - (other.predicted == TRUTH.labels)
    error = np.mean([differs[TRUTH.labels == k].var() / 100 for k in (0, 1)]) ** 0.5 / 2**0.5
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.15)


def test_one_seed_has_no_interval_and_its_verdict_says_so():
    runs = {name: {0: answers(TRUTH, 0.8, seed=i)} for i, name in enumerate(("real", "dfr"))}

    found = paired_difference(runs, "dfr", baseline="real", truth=TRUTH)

    assert np.isnan(found.low)
    assert not found.excludes_zero
    assert "one seed, so no interval" in verdict(found)


def test_a_verdict_names_gain_interval_and_opponent_and_does_not_call_noise_a_gain():
    runs = {
        "real": {s: answers(TRUTH, 0.6, seed=s) for s in range(4)},
        "good": {s: answers(TRUTH, 0.95, seed=10 + s) for s in range(4)},
        "alike": {s: answers(TRUTH, 0.6, seed=20 + s) for s in range(4)},
    }
    gain, noise = (paired_difference(runs, arm, baseline="real", truth=TRUTH) for arm in ("good", "alike"))

    assert gain.excludes_zero
    assert verdict(gain) == (
        f"{100 * gain.mean:+.1f} points worst-group accuracy ({100 * gain.low:.1f} ... {100 * gain.high:.1f}) "
        "against real only"
    )
    assert verdict(noise).endswith("an interval that does not exclude 0")
    assert verdict(gain, name_metric=False) == verdict(gain).replace(" points worst-group accuracy", "")


def test_arms_of_other_seeds_are_not_compared():
    runs = {"real": {0: answers(TRUTH, 0.8, seed=0)}, "dfr": {1: answers(TRUTH, 0.8, seed=0)}}

    with pytest.raises(ValueError, match=r"seeds \[0, 1\] are in one only"):
        paired_difference(runs, "dfr", baseline="real", truth=TRUTH)
    with pytest.raises(ValueError, match="there is no arm 'mixup'"):
        paired_difference(runs, "mixup", baseline="real", truth=TRUTH)


def test_groups_have_intervals_that_shrink_with_their_size():
    truth = truth_of(np.zeros(440, dtype=int), np.repeat([0, 2], [40, 400]))
    by_seed = {s: answers(truth, 0.7, seed=s) for s in range(5)}

    found = group_intervals(by_seed, truth, group_names=["few", "none", "many"]).set_index("group")

    assert list(found.index) == ["few", "many"]
    assert found["images"].tolist() == [40, 400]
    width = found["high"] - found["low"]
    assert width["few"] > 1.5 * width["many"]


def test_the_best_arm_is_the_one_with_the_best_worst_group_and_ties_go_to_the_mean():
    truth = truth_of([0, 0, 1, 1, 2, 2])

    def runs(*predicted):
        return {0: Predictions(np.array(predicted), np.ones(6, dtype=np.float32))}

    arms = {
        "lopsided": runs(0, 0, 1, 1, 0, 0),  # 1, 1, 0
        "even": runs(0, 1, 1, 0, 2, 0),  # 1/2 each
        "better": runs(0, 0, 1, 0, 2, 0),  # 1, 1/2, 1/2
    }

    assert choose_arm(arms, truth, num_groups=3) == "better"
