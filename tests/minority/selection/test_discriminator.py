"""The discriminator, the negatives it learns from, and floors from rare real images, on scikit-learn's digits."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from minority.classifier import ClassifierSettings
from minority.features.pixel_features import pixel_features
from minority.selection.discriminator import Discriminator, DiscriminatorSettings
from minority.selection.filter_building import HeldOutRules, SelectionSettings, build_filter
from minority.selection.negatives import BLENDS, MIRRORED, make_negatives

QUICK = DiscriminatorSettings(folds=2, classifier=ClassifierSettings(steps=120, width=16))


@pytest.fixture(scope="module")
def digits():
    """500 training scans and 600 unseen ones of three classes: (images, labels) each."""
    scans = load_digits()
    order = np.random.default_rng(0).permutation(np.flatnonzero(scans.target < 4))
    images = np.rint(scans.images[order] * 255 / 16).astype(np.uint8)[..., None]
    labels = scans.target[order].astype(np.int64)
    return (images[:400], labels[:400]), (images[400:], labels[400:])


@pytest.fixture(scope="module")
def candidate_filter(digits):
    (images, labels), _ = digits
    settings = SelectionSettings(held_out=HeldOutRules(discriminator=QUICK), rare_quantile=0.7)
    return build_filter(pixel_features(images), labels, settings=settings, images=images)


def test_negatives_are_made_in_the_shares_that_are_asked_for(digits):
    (images, _), _ = digits

    negatives = make_negatives(images, seed=0, mirrored=True)
    faces = make_negatives(images, seed=0, mirrored=False)

    assert negatives.odds.sum() == pytest.approx(1)
    kinds = np.array(negatives.kinds)
    assert negatives.odds[kinds == BLENDS].sum() == pytest.approx(0.5)
    assert MIRRORED in negatives.kinds
    assert MIRRORED not in faces.kinds
    assert negatives.images.shape[1:] == images.shape[1:]
    with pytest.raises(ValueError, match="at least 2 real images"):
        make_negatives(images[:1], seed=0, mirrored=True)


def test_no_blend_is_of_an_image_with_itself(digits):
    (images, _), _ = digits

    negatives = make_negatives(images[:2], seed=0, mirrored=False)
    blends = negatives.images[np.array(negatives.kinds) == BLENDS]

    assert not any((blend == image).all() for blend in blends for image in images[:2])


def test_the_discriminator_tells_real_from_noise_and_names_the_class(candidate_filter, digits):
    _, (unseen, labels) = digits
    noise = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 1), dtype=np.uint8)

    real, negative = candidate_filter.discriminator.predict(unseen), candidate_filter.discriminator.predict(noise)

    assert np.median(real.p_real) > 0.7
    assert negative.p_real.max() < 0.3
    assert (real.probabilities.argmax(axis=1) == labels).mean() > 0.9
    np.testing.assert_allclose(real.probabilities.sum(axis=1), 1)


def test_margins_lead_the_likeliest_other_label():
    from minority.selection.discriminator import DiscriminatorOutput

    output = DiscriminatorOutput(np.ones(2), np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]]))

    np.testing.assert_allclose(output.margin(np.array([0, 2])), [0.5, -0.3])


def test_every_training_image_is_evaluated_by_a_member_that_did_not_see_it(digits):
    (images, _), _ = digits
    # Labels that only memory could know.
    random = np.random.default_rng(0).integers(0, 2, 120)

    discriminator = Discriminator.train(images[:120], random, num_classes=2, settings=QUICK)

    assert 0.3 < (discriminator.of_training.probabilities.argmax(axis=1) == random).mean() < 0.7


def test_noise_never_passes(candidate_filter):
    rng = np.random.default_rng(1)
    for noise in (
        rng.integers(0, 256, (300, 8, 8, 1), dtype=np.uint8),
        np.clip(rng.normal(80, 90, (300, 8, 8, 1)), 0, 255).astype(np.uint8),
        np.zeros((1, 8, 8, 1), dtype=np.uint8),
        np.full((1, 8, 8, 1), 255, dtype=np.uint8),
    ):
        for label in range(4):
            verdicts = candidate_filter.evaluate(pixel_features(noise), np.full(len(noise), label), images=noise)
            assert not verdicts.passed.any()


def test_mirrored_and_slightly_noisy_training_images_are_copies(candidate_filter, digits):
    (images, labels), _ = digits
    noise = np.random.default_rng(0).normal(size=images.shape) * 2
    for copies in (
        np.ascontiguousarray(images[:, :, ::-1]),
        np.clip(images + noise, 0, 255).astype(np.uint8),
    ):
        assert not candidate_filter.evaluate(pixel_features(copies), labels, images=copies).new.any()


def test_most_rare_unseen_images_pass(candidate_filter, digits):
    _, (unseen, labels) = digits

    verdicts = candidate_filter.evaluate(pixel_features(unseen), labels, images=unseen)

    assert verdicts.rare.sum() > 50
    assert verdicts.passed[verdicts.rare].mean() > 0.8
    assert set(verdicts.quantiles) >= {"knn_distance", "p_real", "label_probability", "lof"}
    assert all(((q >= 0) & (q <= 1)).all() for q in verdicts.quantiles.values())


def test_rare_images_under_a_wrong_label_lose_it(candidate_filter, digits):
    _, (unseen, labels) = digits

    verdicts = candidate_filter.evaluate(pixel_features(unseen), (labels + 1) % 4, images=unseen)

    assert verdicts.label_kept.mean() < 0.15
    np.testing.assert_array_less(verdicts.label_margin[~verdicts.label_kept].mean(), 0)


def test_the_verdict_does_not_depend_on_the_batch(candidate_filter, digits):
    _, (unseen, labels) = digits

    whole = candidate_filter.evaluate(pixel_features(unseen), labels, images=unseen)
    part = candidate_filter.evaluate(pixel_features(unseen[:7]), labels[:7], images=unseen[:7])

    np.testing.assert_array_equal(whole.passed[:7], part.passed)
    np.testing.assert_allclose(whole.output.p_real[:7], part.output.p_real, rtol=1e-5)


def test_images_are_asked_for_where_a_discriminator_evaluates(candidate_filter, digits):
    (images, labels), _ = digits
    with pytest.raises(ValueError, match="pass images too"):
        candidate_filter.evaluate(pixel_features(images), labels)
    with pytest.raises(ValueError, match="needs the training images"):
        build_filter(pixel_features(images), labels, settings=candidate_filter.settings)


@pytest.mark.parametrize("field", ["realism", "copy_ratio", "p_real", "label"])
def test_impossible_rules_are_refused(field):
    with pytest.raises(ValueError, match=f"HeldOutRules.{field}"):
        HeldOutRules(**{field: 1.0})
    with pytest.raises(ValueError, match="folds"):
        DiscriminatorSettings(folds=1)


@pytest.mark.parametrize("greys", [[0], [0, 128]], ids=["black", "black and grey"])
def test_a_set_of_constant_images_gives_numbers_and_noise_is_no_copy_of_it(greys):
    images = np.concatenate([np.full((20, 8, 8, 1), grey, np.uint8) for grey in greys])
    labels = np.repeat(np.arange(len(greys)), 20)
    quick = DiscriminatorSettings(folds=2, classifier=ClassifierSettings(steps=20, width=8))
    settings = SelectionSettings(held_out=HeldOutRules(discriminator=quick), rare_quantile=0.7)
    noise = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 1), dtype=np.uint8)

    candidate_filter = build_filter(pixel_features(images), labels, settings=settings, images=images)
    drawn = candidate_filter.evaluate(pixel_features(noise), np.zeros(9, np.int64), images=noise)
    copied = candidate_filter.evaluate(pixel_features(images[:3]), labels[:3], images=images[:3])

    assert not np.isnan(list(candidate_filter.thresholds.values())).any()
    for verdicts in (drawn, copied):
        assert np.isfinite(verdicts.neighbourhood.lof).all()
        assert np.isfinite(verdicts.neighbourhood.copy_ratio).all()
        assert np.isfinite(verdicts.output.p_real).all()
        assert np.isfinite(verdicts.label_margin).all()
        assert all(np.isfinite(values).all() for values in verdicts.quantiles.values())
    assert drawn.new.all()
    assert drawn.rare.all()
    assert not copied.new.any()
