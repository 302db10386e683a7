"""Hidden groups are found where a shortcut gives the class away, without a look at the attribute."""

from dataclasses import replace

import numpy as np
import pytest

from minority.discovery.agreement import agreement_with
from minority.discovery.biased_models import Fit, fit_and_ask, folds_of, planned_fits
from minority.discovery.conflicts import Conflicts, clusters_of, conflicts_of, of_training, weights_of
from minority.discovery.settings import DiscoverySettings
from minority.downstream.data import LabelledImages
from minority.downstream.settings import DownstreamSettings, Jitter, NetworkSettings

BUDGET = DownstreamSettings(
    network=NetworkSettings(width=6),
    steps=60,
    learning_rates=(3e-3,),
    weight_decays=(0.03,),
    trials=1,
    jitter=Jitter(shift=0, rotation=0),
)


def cornered(corner_of_class, *, per_class=150, conflicts=6, seed=0):
    """Two classes told by a faint bar; a loud corner is bright in one and dark in the other, but for a few images."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], per_class)
    conflicting = np.tile(np.arange(per_class) < conflicts, 2)
    pixels = rng.normal(90, 25, size=(len(labels), 8, 8))
    pixels[labels == 1, :, 6] += 30
    if corner_of_class:
        bright = (labels == 1) != conflicting
        pixels[bright, :3, :3] = 250
        pixels[~bright, :3, :3] = 10
    images = LabelledImages(pixels.clip(0, 255).astype(np.uint8)[..., None], labels, labels)
    return images, conflicting


def found_in(images, settings, **more):
    nothing = images.subset(np.zeros(0, dtype=np.int64))
    answers = [
        fit_and_ask(fit, images, nothing, num_classes=2, settings=settings, **more) for fit in planned_fits(settings)
    ]
    return of_training(answers, images.labels)


@pytest.mark.parametrize("method", ["cross_fitted", "early"])
def test_conflicting_images_are_found_and_their_number_too(method):
    images, conflicting = cornered(corner_of_class=True)

    found = found_in(images, DiscoverySettings(method=method, models=2, early_steps=40, budget=BUDGET))

    hits = (found.conflicting & conflicting).sum()
    assert hits / found.conflicting.sum() >= 0.8
    assert hits / conflicting.sum() >= 0.8
    assert found.votes[conflicting].mean() > 0.8 > 0.2 > found.votes[~conflicting].mean()


def test_the_amplifier_judges_images_by_what_its_samples_show():
    images, conflicting = cornered(corner_of_class=True)
    samples, _ = cornered(corner_of_class=True, conflicts=0, seed=1)  # the bias of the images, and more of it

    found = found_in(images, DiscoverySettings(method="amplifier", models=1, budget=BUDGET), samples=samples)

    assert found.conflicting.tolist() == conflicting.tolist()
    with pytest.raises(ValueError, match="learns from plain samples"):
        found_in(images, DiscoverySettings(method="amplifier", models=1, budget=BUDGET))


def test_groups_and_attributes_change_nothing():
    images, conflicting = cornered(corner_of_class=True)
    settings = DiscoverySettings(models=1, budget=replace(BUDGET, steps=8))
    known = LabelledImages(images.images, images.labels, 2 * images.labels + conflicting, conflicting.astype(np.int64))

    without, with_them = found_in(images, settings), found_in(known, settings)

    np.testing.assert_array_equal(without.loss, with_them.loss)


def test_an_image_is_judged_by_models_that_have_not_seen_it():
    images, _ = cornered(corner_of_class=True, per_class=20, conflicts=1)
    settings = DiscoverySettings(models=1, folds=4, budget=replace(BUDGET, steps=2))
    folds = folds_of(images.labels, folds=4, seed=settings.seed)

    for fold in range(4):
        answers = fit_and_ask(Fit(round=0, fold=fold), images, images, num_classes=2, settings=settings)
        assert (~np.isnan(answers.train[:, 0])).tolist() == (folds == fold).tolist()
    # Every fold has every class alike.
    assert {np.bincount(images.labels[folds == fold]).tolist() == [5, 5] for fold in range(4)} == {True}
    # And what the held-out image is does not matter: another image in its place leaves the others' answers.
    changed = images.images.copy()
    place = int(np.flatnonzero(folds == 0)[0])
    changed[place] = 255 - changed[place]
    other = LabelledImages(changed, images.labels, images.groups)
    first, second = (
        fit_and_ask(Fit(round=0, fold=0), part, images, num_classes=2, settings=settings).others
        for part in (images, other)
    )
    np.testing.assert_array_equal(first, second)


def test_a_class_too_small_for_the_folds_is_refused():
    with pytest.raises(ValueError, match=r"class 1 has 1 training images for 2 folds; set discovery\.folds lower"):
        folds_of(np.array([0, 0, 1]), folds=2, seed=0)


def test_answers_are_averaged_over_the_models_that_were_asked():
    nobody = [np.nan, np.nan]
    answers = [np.array([[0.9, 0.1], nobody]), np.array([[0.3, 0.7], [0.2, 0.8]])]

    found = conflicts_of(answers, np.array([0, 0]))

    assert found.taken_for.tolist() == [0, 1]
    assert found.conflicting.tolist() == [False, True]
    np.testing.assert_allclose(found.loss, [-np.log(0.6), -np.log(0.2)])
    assert found.votes.tolist() == [0.5, 1.0]
    with pytest.raises(ValueError, match="1 images were put to no model"):
        conflicts_of(answers[:1], np.array([0, 0]))


def test_clusters_are_what_images_are_taken_for_and_small_ones_are_one():
    labels = np.zeros(6, dtype=np.int64)
    taken = np.array([0, 1, 1, 1, 2, 0])
    found = Conflicts(taken, taken != labels, np.zeros(6), np.zeros(6))

    clusters = clusters_of(found, labels, class_names=["a", "b", "c"], smallest=2)

    assert clusters == ["typical", "taken for b", "taken for b", "taken for b", "taken for others", "typical"]


def test_weights_give_conflicting_and_typical_images_of_a_class_one_half_each():
    labels = np.array([0, 0, 0, 0, 1, 1])
    conflicting = np.array([True, False, False, False, False, False])

    weights = weights_of(conflicting, labels)

    np.testing.assert_allclose(weights, [2, 2 / 3, 2 / 3, 2 / 3, 1, 1])


def test_agreement_counts_what_is_not_the_commonest_value_of_its_class():
    labels = np.array([0, 0, 0, 1, 1, 1, 1])
    values = ["m", "m", "f", "f", "f", "m", None]
    conflicting = np.array([False, True, True, False, False, False, True])

    found = agreement_with("sex", values, conflicting=conflicting, labels=labels)

    # Of six known: image 2 and image 5 conflict; 1 and 2 were flagged.
    assert (found.images, found.share, found.precision, found.recall) == (6, 2 / 6, 1 / 2, 1 / 2)
    assert agreement_with("one", ["x"] * 7, conflicting=conflicting, labels=labels) is None


@pytest.mark.parametrize(
    ("name", "value", "rule"), [("models", 0, "at least 1"), ("folds", 1, "at least 2"), ("q", 0.0, "in \\(0, 1\\]")]
)
def test_settings_out_of_range_are_refused(name, value, rule):
    with pytest.raises(ValueError, match=f"DiscoverySettings.{name} must be {rule}, got {value}"):
        DiscoverySettings(**{name: value})
