"""The harness finds what was planted: gain, harm, nothing; and the known ordering of methods on a shortcut problem."""

import pytest

from minority.downstream.arms import REAL_ARMS, synthetic_arms
from minority.downstream.comparison import paired_difference, summarise
from minority.downstream.settings import DownstreamSettings, Jitter, NetworkSettings
from minority.downstream.trials import run_trial, trials_for

SEEDS = range(4)
DIGITS = DownstreamSettings(network=NetworkSettings(width=12), steps=160)
# A rotation or shift would move the corner that gives the class away.
BARS = DownstreamSettings(
    network=NetworkSettings(width=8), steps=120, weight_decays=(0.01, 0.1), jitter=Jitter(shift=0, rotation=0)
)


def run(arms, data, settings):
    """Predictions of the test images by the first trial of every arm."""
    return {
        arm.name: {
            seed: run_trial(trials_for(arm, settings)[0], seed, data, settings=settings, part="test") for seed in SEEDS
        }
        for arm in arms
    }


def real_arm(name):
    return next(arm for arm in REAL_ARMS if arm.name == name)


@pytest.fixture(scope="module")
def planted(planted_digits):
    # Oversampling is the opponent: copies balance the classes too, and that alone is worth much here.
    arms = [real_arm("oversampling"), *(synthetic_arms(source)[0] for source in planted_digits.synthetic)]
    return run(arms, planted_digits, DIGITS)


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["worst_group_accuracy", "balanced_accuracy"])
def test_true_images_of_rare_classes_are_found_to_help(planted, planted_digits, metric):
    found = paired_difference(planted, "real+fresh", baseline="oversampling", truth=planted_digits.test, metric=metric)

    assert found.low > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["worst_group_accuracy", "balanced_accuracy"])
def test_shuffled_labels_are_found_to_harm(planted, planted_digits, metric):
    found = paired_difference(
        planted, "real+shuffled", baseline="oversampling", truth=planted_digits.test, metric=metric
    )

    assert found.high < -0.05


@pytest.mark.slow
def test_copies_of_training_images_are_found_to_be_worth_nothing(planted, planted_digits):
    # Both arms draw every class about equally often; 99 % keeps chance from failing this on another platform.
    found = paired_difference(
        planted,
        "real+copies",
        baseline="oversampling",
        truth=planted_digits.test,
        metric="balanced_accuracy",
        confidence=0.99,
    )

    assert not found.excludes_zero
    assert abs(found.mean) < 0.03


def test_group_dro_and_dfr_mend_the_worst_group_of_a_shortcut_problem(spurious_bars):
    runs = run([real_arm(name) for name in ("real", "group-dro", "dfr")], spurious_bars, BARS)

    for arm in ("group-dro", "dfr"):
        found = paired_difference(runs, arm, baseline="real", truth=spurious_bars.test)
        assert found.low > 0.05, arm
    means = summarise(runs, spurious_bars.test).set_index(["arm", "metric"])["mean"]
    # The shortcut itself is learnt: whom it serves are served well.
    assert means["real", "accuracy"] - means["real", "worst_group_accuracy"] > 0.15


def test_logit_adjustment_and_class_balancing_mend_a_rare_class(rare_bars):
    arms = [real_arm(name) for name in ("real", "logit-adjustment", "class-balanced-loss", "oversampling")]
    runs = run(arms, rare_bars, BARS)

    for arm in ("logit-adjustment", "class-balanced-loss", "oversampling"):
        found = paired_difference(runs, arm, baseline="real", truth=rare_bars.test, metric="worst_class_accuracy")
        assert found.low > 0.03, arm
