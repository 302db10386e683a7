from dataclasses import replace

import numpy as np
import pytest

from minority.downstream.arms import arms_for
from minority.downstream.data import DownstreamData, LabelledImages
from minority.downstream.jobs import Comparison
from minority.downstream.predictions import Predictions
from minority.downstream.settings import DownstreamSettings
from minority.downstream.trials import tuning_seeds

SETTINGS = DownstreamSettings(trials=2, tuning_seeds=2)
ARMS = [arm for arm in arms_for(["plain"]) if arm.name in ("real", "real+plain")]
REAL, PLAIN = ARMS


def part(count, *, shade=0):
    labels = np.repeat([0, 1], count)
    return LabelledImages(np.full((len(labels), 8, 8, 1), shade, dtype=np.uint8), labels, labels)


DATA = DownstreamData(
    train=part(3),
    validation=part(4),
    test=part(5),
    class_names=("a", "b"),
    group_names=("a", "b"),
    synthetic={"plain": part(2)},
)


def comparison(*, data=DATA, settings=SETTINGS, seeds=3):
    return Comparison(data, settings, arms=ARMS, seeds=seeds)


class Kept:
    """Results by name, as a store keeps them; every training so far is right about a share of the images."""

    def __init__(self, compared):
        self.compared, self.results = compared, {}

    def do(self, jobs, *, right=1.0):
        for job in jobs:
            labels = getattr(DATA, job.part).labels
            wrong = np.arange(len(labels)) % 10 >= 10 * right
            said = Predictions(np.where(wrong, 1 - labels, labels), np.ones(len(labels), dtype=np.float32))
            self.results[self.compared.name(job)] = said

    def read(self, job):
        return self.results.get(self.compared.name(job))


def test_an_arm_is_tuned_before_it_is_tested_and_tested_by_the_trial_that_was_chosen():
    compared = comparison()
    kept, tuning = Kept(compared), compared.tuning(REAL)

    assert [job.part for job in tuning] == ["validation"] * SETTINGS.trials * SETTINGS.tuning_seeds
    assert {job.seed for job in tuning} == set(tuning_seeds(SETTINGS))
    kept.do(tuning[:-1], right=0.5)
    assert compared.tests(REAL, kept.read) is None
    kept.do(tuning[2:], right=0.9)
    tests = compared.tests(REAL, kept.read)
    assert [(job.trial, job.seed, job.part) for job in tests] == [(tuning[2].trial, seed, "test") for seed in range(3)]


def test_an_arm_without_all_its_results_is_unfinished_and_no_part_of_the_outcome():
    compared = comparison()
    kept = Kept(compared)
    for arm in ARMS:
        kept.do(compared.tuning(arm))
    kept.do(compared.tests(REAL, kept.read))
    kept.do(compared.tests(PLAIN, kept.read)[:-1])

    outcome = compared.outcome(kept.read)

    assert outcome.unfinished == ["real+plain"]
    assert list(outcome.tested) == list(outcome.chosen) == list(outcome.validated) == ["real"]
    assert sorted(outcome.tested["real"]) == [0, 1, 2]
    assert sorted(outcome.validated["real"]) == list(tuning_seeds(SETTINGS))


@pytest.mark.parametrize(
    "change",
    [
        {"settings": replace(SETTINGS, steps=301)},
        {"settings": replace(SETTINGS, batch_size=65)},
        {"data": replace(DATA, train=part(3, shade=1))},
        {"data": replace(DATA, validation=part(4, shade=1))},
        {"data": replace(DATA, synthetic={"plain": part(2, shade=1)})},
    ],
    ids=["steps", "batch", "training images", "validation images", "synthetic images"],
)
def test_what_changes_a_training_changes_its_name(change):
    job = comparison().tuning(PLAIN)[0]

    assert comparison(**change).name(job) != comparison().name(job)


def test_more_trials_seeds_or_arms_leave_names_alone_so_that_results_are_used_again():
    more = replace(SETTINGS, trials=4, tuning_seeds=3, record_steps=False)
    job = comparison().tuning(REAL)[0]

    assert comparison(settings=more, seeds=9).name(job) == comparison().name(job)
    assert comparison(data=replace(DATA, synthetic={"plain": part(9)})).name(job) == comparison().name(job)


def test_names_are_fit_for_files_and_never_doubled():
    compared = comparison()
    kept = Kept(compared)
    for arm in ARMS:
        kept.do(compared.tuning(arm))
    jobs = [job for arm in ARMS for job in (*compared.tuning(arm), *compared.tests(arm, kept.read))]

    names = [compared.name(job) for job in jobs]

    assert len(set(names)) == len(names) == 2 * (4 + 3)
    assert all(character.isalnum() or character == "-" for name in names for character in name)


def test_a_comparison_without_validation_images_arms_or_seeds_is_refused():
    empty = DATA.validation.subset(np.arange(0))

    with pytest.raises(ValueError, match="arms are tuned on validation images, got none"):
        comparison(data=replace(DATA, validation=empty))
    with pytest.raises(ValueError, match="at least one arm and one seed, got 2 and 0"):
        comparison(seeds=0)
    with pytest.raises(ValueError, match="different names, got real, real"):
        Comparison(DATA, SETTINGS, arms=[REAL, REAL], seeds=1)
