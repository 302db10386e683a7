"""Arms that use a pretrained backbone itself: what they are fitted on, what they answer, what they cost."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from minority.downstream.arms import BACKBONE_ARMS, CONDITIONAL_BACKBONE_ARMS, REAL_ARMS, Arm, backbone_arms
from minority.downstream.backbone_outputs import BackboneReading
from minority.downstream.cost import cost_of, in_words
from minority.downstream.data import DownstreamData, LabelledImages
from minority.downstream.jobs import Comparison
from minority.downstream.predictions import Predictions
from minority.downstream.settings import DownstreamSettings, NetworkSettings
from minority.downstream.trials import Trial, run_trial, trials_for

K, LEVELS = 3, 4
SETTINGS = DownstreamSettings(network=NetworkSettings(width=4), steps=30, batch_size=16, trials=2, tuning_seeds=1)
ARMS = {arm.name: arm for arm in backbone_arms(["drawn"], conditional=True)}


class Pooled(nn.Module):
    """An encoder with weights: the mean brightness of four quarters."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(1, 4, kernel_size=4, stride=4)

    def forward(self, images):
        return self.mix(images).mean(dim=(2, 3))


def part(labels, *, seed, noise=20):
    rng = np.random.default_rng(seed)
    images = rng.normal(60 + 60 * labels[:, None, None, None], noise, size=(len(labels), 8, 8, 1))
    return LabelledImages(images.clip(0, 255).astype(np.uint8), labels, labels)


def features(images):
    return images.images.reshape(len(images), 8, 8).mean(axis=2).astype(np.float32) / 255


def errors(labels, *, seed, right=True):
    """Errors that are lowest under the true class, or under the next one."""
    rng = np.random.default_rng(seed)
    found = 1 + 0.01 * rng.random((len(labels), K, LEVELS)).astype(np.float32)
    found[np.arange(len(labels)), labels if right else (labels + 1) % K] -= 0.5
    return found


@pytest.fixture
def data():
    train = part(np.repeat([0, 1, 2], [30, 12, 4]).astype(np.int64), seed=0)
    held = np.repeat(np.arange(K), 8).astype(np.int64)
    validation, test, drawn = part(held, seed=1), part(held, seed=2), part(held, seed=3)
    augmented = part(np.tile(np.arange(K), 20).astype(np.int64), seed=4)
    parts = {"train": train, "validation": validation, "test": test, "drawn": drawn}
    reading = BackboneReading(
        identity="toy",
        features={name: features(images) for name, images in parts.items()},
        errors={
            "validation": errors(validation.labels, seed=5),
            "test": errors(test.labels, seed=6),
            "augmented": errors(augmented.labels, seed=7),
        },
        dimensions=64,
        augmented=augmented,
        encoder=Pooled(),
        encoder_features=4,
        encoder_macs=1000.0,
        evaluation_macs=5000.0,
        evaluations=K * LEVELS,
        drawing_macs={"drawn": 77.0},
    )
    names = ("a", "b", "c")
    return DownstreamData(
        train=train,
        validation=validation,
        test=test,
        class_names=names,
        group_names=names,
        synthetic={"drawn": drawn},
        reading=reading,
    )


def predict(arm, data, *, part="test", seed=0):
    trial = Trial(arm=arm, learning_rate=3e-3, weight_decay=0.03)
    return run_trial(trial, seed, data, settings=SETTINGS, part=part)


def accuracy(found, truth):
    return float((found.predicted == truth.labels).mean())


@pytest.mark.parametrize("name", ["linear probe", "linear probe dfr", "zero-shot", "linear probe filled drawn"])
def test_arms_that_train_no_network_tell_the_classes_apart(data, name):
    assert accuracy(predict(ARMS[name], data), data.test) > 0.9
    assert accuracy(predict(ARMS[name], data, part="validation"), data.validation) > 0.9


def test_the_zero_shot_arm_asks_no_training_image(data):
    other = replace(data, train=part(np.roll(data.train.labels, 7), seed=9))

    np.testing.assert_array_equal(
        predict(ARMS["zero-shot"], data).predicted, predict(ARMS["zero-shot"], other).predicted
    )


@pytest.mark.parametrize("name", sorted(ARMS))
def test_no_test_image_is_in_any_fit(data, name):
    """With test images, their features and errors exchanged, what is predicted on validation stays as it is."""
    arm = ARMS[name]
    reading = data.reading
    hidden = replace(
        data,
        test=part(data.test.labels[::-1].copy(), seed=11),
        reading=replace(
            reading,
            features={**reading.features, "test": reading.features["test"][::-1] + 5},
            errors={**reading.errors, "test": errors(data.test.labels, seed=12, right=False)},
        ),
    )

    seen, unseen = (predict(arm, each, part="validation") for each in (data, hidden))

    np.testing.assert_array_equal(seen.predicted, unseen.predicted)
    np.testing.assert_array_equal(seen.confidence, unseen.confidence)


def test_a_distilled_network_learns_the_teachers_answers_and_not_the_labels(data):
    arm = replace(ARMS["zero-shot distilled"], sharpness=1.0)
    settings = replace(SETTINGS, steps=150)
    wrong = replace(
        data,
        reading=replace(
            data.reading,
            errors={**data.reading.errors, "augmented": errors(data.reading.augmented.labels, seed=7, right=False)},
        ),
    )
    trial = Trial(arm=arm, learning_rate=1e-2, weight_decay=0.0)

    taught = run_trial(trial, 0, data, settings=settings, part="test")
    misled = run_trial(trial, 0, wrong, settings=settings, part="test")

    assert accuracy(taught, data.test) > 0.8
    assert float((misled.predicted == (data.test.labels + 1) % K).mean()) > 0.8


def test_a_fine_tuned_encoder_starts_at_the_backbones_weights_and_leaves_them_alone(data):
    before = {name: value.clone() for name, value in data.reading.encoder.state_dict().items()}

    first = predict(ARMS["encoder fine-tuned"], data)
    again = predict(ARMS["encoder fine-tuned"], data)

    assert all(torch.equal(before[name], value) for name, value in data.reading.encoder.state_dict().items())
    np.testing.assert_array_equal(first.predicted, again.predicted)


def test_every_arm_gets_as_many_trials(data):
    counts = {arm.name: len(trials_for(arm, SETTINGS)) for arm in (*REAL_ARMS, *ARMS.values())}

    assert set(counts.values()) == {SETTINGS.trials}


def test_results_are_named_by_the_reading(data):
    arm = ARMS["zero-shot"]
    other = replace(data, reading=replace(data.reading, identity="another backbone"))

    def name(each, of):
        comparison = Comparison(each, SETTINGS, arms=[of], seeds=2)
        return comparison.name(comparison.tuning(of)[0])

    assert name(data, arm) != name(other, arm)
    assert name(data, REAL_ARMS[0]) == name(other, REAL_ARMS[0])


def test_filled_draws_every_class_equally_often_from_one_heap(data):
    from minority.downstream.sampling import odds_of

    odds = odds_of(ARMS["filled drawn"], data.train.groups, synthetic_groups=data.synthetic["drawn"].groups)
    groups = np.concatenate([data.train.groups, data.synthetic["drawn"].groups])

    np.testing.assert_allclose(np.bincount(groups, weights=odds), 1 / K)


def test_a_reading_is_kept_and_read_back(data):
    file = io.BytesIO()
    data.reading.save(file)
    file.seek(0)

    back = BackboneReading.load(file, encoder=data.reading.encoder)

    assert back.digest() == data.reading.digest()
    assert (back.evaluations, back.drawing_macs) == (K * LEVELS, {"drawn": 77.0})
    np.testing.assert_array_equal(back.augmented.images, data.reading.augmented.images)


def test_an_arm_without_its_reading_says_so(data):
    with pytest.raises(ValueError, match="'linear probe' needs a pretrained backbone's reading"):
        predict(BACKBONE_ARMS[0], replace(data, reading=None))
    with pytest.raises(ValueError, match="need a class-conditional backbone"):
        predict(CONDITIONAL_BACKBONE_ARMS[0], replace(data, reading=replace(data.reading, errors={})))


def test_costs_count_what_each_recipe_asks_of_a_machine(data):
    small = cost_of(REAL_ARMS[0], data, SETTINGS)
    zero_shot = cost_of(ARMS["zero-shot"], data, SETTINGS)
    probe = cost_of(ARMS["linear probe"], data, SETTINGS)
    distilled = cost_of(ARMS["zero-shot distilled"], data, SETTINGS)
    filled = cost_of(ARMS["filled drawn"], data, SETTINGS)

    # 3x3 convolutions: 9 multiply-adds a pixel and pair of channels; 64 pixels of 1 -> 4 -> 4, 16 of 4 -> 8 -> 8.
    assert small.image == 64 * 9 * (4 + 16) + 16 * 9 * (32 + 64) + 8 * K
    assert small.training == 3 * small.image * 30 * 16
    assert (zero_shot.image, zero_shot.training, zero_shot.evaluations) == (K * LEVELS * 5000, 0, K * LEVELS)
    assert probe.image == 1000 + 8 * K
    assert distilled.image == small.image
    assert distilled.training == small.training + 60 * K * LEVELS * 5000
    assert (small.drawing, filled.drawing) == (0, 77.0)


@pytest.mark.parametrize(("macs", "words"), [(0, "0"), (378176, "378 k"), (4.02e8, "402 M"), (float("nan"), "-")])
def test_costs_in_words(macs, words):
    assert in_words(macs) == words


def test_predictions_of_the_zero_shot_arm_are_probabilities(data):
    found = predict(Arm(name="z", learner="zero_shot"), data)

    assert isinstance(found, Predictions)
    assert ((found.confidence > 1 / K) & (found.confidence <= 1)).all()
