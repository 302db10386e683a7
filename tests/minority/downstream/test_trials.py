from dataclasses import replace

import numpy as np
import pytest

from minority.downstream.arms import Arm, arms_for
from minority.downstream.data import LabelledImages
from minority.downstream.predictions import Predictions
from minority.downstream.settings import DownstreamSettings, Jitter, NetworkSettings
from minority.downstream.trials import choose_trial, fold_of, run_trial, trials_for, tuning_seeds

SETTINGS = DownstreamSettings(network=NetworkSettings(width=4), steps=30, jitter=Jitter(shift=0, rotation=0))


def test_every_arm_gets_the_same_number_of_different_trials():
    for arm in arms_for(["plain", "minority"]):
        trials = trials_for(arm, SETTINGS)
        assert len({trial.key for trial in trials}) == SETTINGS.trials == 4


def test_an_arm_with_a_strength_tries_it_with_the_learning_rates():
    arm = next(arm for arm in arms_for([]) if arm.name == "logit-adjustment")

    tried = [(trial.arm.tau, trial.learning_rate, trial.weight_decay) for trial in trials_for(arm, SETTINGS)]

    assert tried == [(1.0, 3e-3, 0.3), (1.0, 1e-3, 0.3), (1.5, 3e-3, 0.3), (1.5, 1e-3, 0.3)]


def test_an_arm_that_cannot_fill_its_trials_is_refused():
    arm = Arm(name="one", loss="logit_adjusted", tuned="tau", values=(1.0,))

    with pytest.raises(ValueError, match="'one' has 2 settings to try, but every arm gets 4 trials"):
        trials_for(arm, SETTINGS)


def test_names_of_arms_and_of_trials_are_never_doubled():
    trials = [trial for arm in arms_for(["plain", "plain-clean"]) for trial in trials_for(arm, SETTINGS)]

    assert len({trial.arm.name for trial in trials}) == len(arms_for(["plain", "plain-clean"]))
    assert len({trial.key for trial in trials}) == len(trials)


def test_tuning_seeds_are_not_seeds_that_are_tested():
    assert min(tuning_seeds(SETTINGS)) >= 10_000


def test_the_trial_with_the_best_worst_group_is_chosen():
    labels = np.array([0, 0, 1, 1])
    validation = LabelledImages(np.zeros((4, 4, 4, 1), dtype=np.uint8), labels, labels)
    lopsided, even, *_ = trials_for(arms_for([])[0], SETTINGS)

    def said(*predicted):
        return Predictions(np.array(predicted), np.ones(4, dtype=np.float32))

    found = {lopsided: [said(0, 0, 0, 0), said(0, 0, 1, 1)], even: [said(0, 1, 1, 1), said(0, 0, 1, 0)]}

    # Mean worst groups: (0 + 1) / 2, and (1/2 + 1/2) / 2: a tie, which the means over groups 3/4 and 3/4 leave.
    assert choose_trial(found, validation, num_groups=2) is lopsided
    found[even][0] = said(0, 0, 1, 1)
    assert choose_trial(found, validation, num_groups=2) is even


def test_without_validation_images_nothing_is_chosen():
    empty = LabelledImages(np.zeros((0, 4, 4, 1), dtype=np.uint8), np.zeros(0, int), np.zeros(0, int))
    trial = trials_for(arms_for([])[0], SETTINGS)[0]

    with pytest.raises(ValueError, match="settings are chosen on validation images, got none"):
        choose_trial({trial: []}, empty, num_groups=2)


def test_a_refitted_layer_never_evaluates_images_that_it_was_fitted_on(spurious_bars):
    # Validation labels that are pure noise can be fitted, but not predicted.
    rng = np.random.default_rng(0)
    noise = rng.permutation(spurious_bars.validation.labels)
    validation = LabelledImages(spurious_bars.validation.images[:60], noise[:60], noise[:60])
    data = replace(spurious_bars, validation=validation)
    dfr = next(arm for arm in arms_for([]) if arm.name == "dfr")

    found = run_trial(trials_for(dfr, SETTINGS)[0], 0, data, settings=SETTINGS, part="validation")

    # 4 standard errors of a fair coin thrown 60 times above one half.
    assert (found.predicted == noise[:60]).mean() < 0.5 + 4 * 0.5 / 60**0.5


def test_folds_hold_half_of_every_group():
    groups = np.array([2, 2, 2, 2, 5, 5, 7])

    fold = fold_of(groups)

    assert [np.bincount(fold[groups == g], minlength=2).tolist() for g in (2, 5, 7)] == [[2, 2], [1, 1], [1, 0]]


def test_groups_without_validation_images_lend_their_training_images(spurious_bars):
    kept = spurious_bars.validation.subset(np.flatnonzero(spurious_bars.validation.labels == 0))
    data = replace(spurious_bars, validation=kept)
    dfr = next(arm for arm in arms_for([]) if arm.name == "dfr")

    found = run_trial(trials_for(dfr, SETTINGS)[0], 0, data, settings=SETTINGS, part="test")

    assert set(np.unique(found.predicted)) == {0, 1}
