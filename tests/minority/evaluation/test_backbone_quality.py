from dataclasses import replace

import numpy as np
import pytest

from minority.backbones import load_backbone
from minority.classifier import ClassifierSettings
from minority.evaluation.backbone_quality import EvaluationFeatures, QualitySettings, measure_quality
from minority.evaluation.backbone_quality_figures import BackboneQuality, CodeLengths, FrechetDistances
from minority.evaluation.baseline_models import PixelHistogram, draw_class_normals
from minority.evaluation.metrics import frechet_distance
from minority.features import build_extractor
from minority.features.pixel_features import pixel_features
from minority.sampling.draw import ScoreSettings, score_images

SETTINGS = QualitySettings(
    samples=6,
    sampling_steps=3,
    held_out=5,
    bits_images=4,
    bits_steps=7,
    features=EvaluationFeatures(classifier=ClassifierSettings(steps=2, width=4)),
)
LENGTHS = CodeLengths(images=3, backbone=2.0, error=0.1, histogram=3.0, normal=4.0)


def photos(count, *, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, size=(count, 8, 8, 1), dtype=np.uint8), np.arange(count) % 3


@pytest.fixture(scope="module")
def evaluated(tiny_backbone):
    (train, train_labels), (held_out, held_out_labels) = photos(12, seed=0), photos(5, seed=1)
    backbone = load_backbone(tiny_backbone)
    quality = measure_quality(
        backbone,
        train=train,
        train_labels=train_labels,
        held_out=held_out,
        held_out_labels=held_out_labels,
        settings=SETTINGS,
    )
    return quality, backbone, (train, train_labels), (held_out, held_out_labels)


def test_quality_tells_a_memoriser_from_a_learner():
    frechet = FrechetDistances(
        features="pixels", dimensions=64, held_out=9, backbone=1.0, class_normals=2.0, training=0.5
    )
    learner = BackboneQuality(
        samples=10,
        sampling_steps=50,
        bits_steps=250,
        sample_distance=1.3,
        held_out_distance=1.3,
        valid=0.9,
        levels=17,
        train_bits=LENGTHS,
        held_out_bits=LENGTHS,
        frechet=frechet,
    )

    assert not learner.memorised
    assert replace(learner, sample_distance=0.2).memorised


def test_distances_are_those_to_the_nearest_training_image(evaluated):
    quality, _, (train, _), (held_out, _) = evaluated

    distances = np.linalg.norm(pixel_features(held_out)[:, None] - pixel_features(train)[None], axis=2)

    assert quality.held_out_distance == pytest.approx(distances.min(axis=1).mean(), rel=1e-5)
    assert np.isfinite(quality.sample_distance)
    assert 0 <= quality.valid <= 1
    assert quality.levels == len(np.unique(train))


def test_bits_are_the_bound_of_some_images_beside_baseline_code_lengths_of_the_same(evaluated):
    quality, backbone, (train, _), (held_out, labels) = evaluated

    assert (quality.train_bits.images, quality.held_out_bits.images) == (4, 4)
    all_but_one = [np.delete(np.arange(5), i) for i in range(5)]
    histogram = PixelHistogram(train)
    possible = [histogram.bits_per_dim(held_out[kept]).mean() for kept in all_but_one]
    kept = all_but_one[int(np.abs(np.array(possible) - quality.held_out_bits.histogram).argmin())]
    assert quality.held_out_bits.histogram == pytest.approx(histogram.bits_per_dim(held_out[kept]).mean(), abs=1e-9)
    bound = score_images(
        backbone,
        held_out[kept],
        seed=SETTINGS.seed,
        indices=range(4),
        labels=labels[kept].tolist(),
        settings=ScoreSettings(draws=1, elbo_steps=7, variance="fixed_large"),
    ).negative_elbo
    assert quality.held_out_bits.backbone == pytest.approx(bound.mean(), rel=1e-5)
    assert quality.held_out_bits.error == pytest.approx(bound.std() / 2, rel=1e-5)


def test_frechet_distances_compare_sets_of_the_held_out_classes(evaluated):
    quality, _, (train, train_labels), (held_out, labels) = evaluated
    extract = build_extractor(SETTINGS.features, train_images=train, train_labels=train_labels)
    wanted = np.resize(labels, 6)

    normals = draw_class_normals(train, train_labels, wanted=wanted, seed=SETTINGS.seed)

    assert quality.frechet.features == extract.recipe
    assert quality.frechet.held_out == 5
    expected = frechet_distance(extract(held_out), extract(normals))
    assert quality.frechet.class_normals == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert min(quality.frechet.backbone, quality.frechet.training) > 0


def test_an_unconditional_backbone_is_evaluated_too(make_backbone, tmp_path):
    backbone = load_backbone(make_backbone(tmp_path / "plain", num_classes=None))
    (train, train_labels), (held_out, held_out_labels) = photos(12, seed=0), photos(5, seed=1)

    quality = measure_quality(
        backbone,
        train=train,
        train_labels=train_labels,
        held_out=held_out,
        held_out_labels=held_out_labels,
        settings=replace(SETTINGS, features=EvaluationFeatures(kind="pixels")),
    )

    assert quality.frechet.features == "pixels"
    assert quality.frechet.class_normals > 0


def test_a_backbone_cannot_be_evaluated_without_held_out_images(tiny_backbone):
    train, labels = photos(12, seed=0)

    with pytest.raises(ValueError, match=r"there are 0; set dataset.split.validation_fraction"):
        measure_quality(
            load_backbone(tiny_backbone),
            train=train,
            train_labels=labels,
            held_out=train[:0],
            held_out_labels=labels[:0],
            settings=SETTINGS,
        )


def test_one_class_cannot_train_a_classifier_to_evaluate_by(tiny_backbone):
    train, labels = photos(12, seed=0)

    with pytest.raises(ValueError, match=r"has 1; set quality.features.kind=backbone"):
        measure_quality(
            load_backbone(tiny_backbone),
            train=train,
            train_labels=np.zeros_like(labels),
            held_out=train[:4],
            held_out_labels=labels[:4],
            settings=SETTINGS,
        )


@pytest.mark.parametrize(("name", "value"), [("samples", 1), ("held_out", 1), ("bits_images", 0), ("bits_steps", 0)])
def test_settings_that_measure_nothing_are_refused(name, value):
    with pytest.raises(ValueError, match=f"QualitySettings.{name} must be at least {value + 1}, got {value}"):
        QualitySettings(**{name: value})
