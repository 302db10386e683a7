import dataclasses

import numpy as np
import pytest
import torch

from minority.classifier import ClassifierSettings, SmallCNN, predict, train_classifier

QUICK = ClassifierSettings(steps=25, batch_size=32, width=8)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def stripes(num_images, *, size=8, channels=1, seed=0):
    """Class 0 has a bright upper half, class 1 a bright left half; both are noisy."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=num_images)
    images = rng.integers(60, size=(num_images, size, size, channels)).astype(np.uint8)
    images[labels == 0, : size // 2] += 150
    images[labels == 1, :, : size // 2] += 150
    return images, labels


def weights_of(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_a_separable_problem_is_learnt():
    images, labels = stripes(80)
    unseen, truth = stripes(200, seed=1)

    model = train_classifier(images, labels, num_classes=2, settings=QUICK, seed=0)

    assert (predict(model, unseen).argmax(axis=1) == truth).mean() > 0.97


@pytest.mark.parametrize(("size", "channels"), [(8, 3), (28, 1), (32, 3), (64, 3)])
def test_sizes_from_8_to_64_and_both_channel_counts_give_probabilities(size, channels):
    images, labels = stripes(12, size=size, channels=channels)
    settings = dataclasses.replace(QUICK, steps=2, batch_size=4)

    model = train_classifier(images, labels, num_classes=3, settings=settings, seed=0)
    probabilities = predict(model, images)

    assert probabilities.shape == (12, 3)
    assert probabilities.dtype == np.float64
    assert probabilities.min() >= 0
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-12)


def test_the_last_stage_sees_four_to_seven_pixels():
    for size in (4, 8, 12, 28, 32, 64):
        model = SmallCNN((size, size), num_channels=1, num_classes=2, width=8)

        side = model.features(torch.zeros(1, 1, size, size)).shape[-1]

        assert 4 <= side <= 7


def test_the_seed_decides_the_training_and_the_global_random_state_does_not():
    images, labels = stripes(40)
    first = train_classifier(images, labels, num_classes=2, settings=QUICK, seed=3)
    torch.manual_seed(12345)
    before = torch.get_rng_state()

    again = train_classifier(images, labels, num_classes=2, settings=QUICK, seed=3)
    other = train_classifier(images, labels, num_classes=2, settings=QUICK, seed=4)

    assert torch.equal(weights_of(first), weights_of(again))
    assert not torch.equal(weights_of(first), weights_of(other))
    assert torch.equal(torch.get_rng_state(), before)


def test_an_image_without_weight_is_never_drawn():
    images, labels = stripes(60)
    poisoned = np.concatenate([images, images])
    wrong = np.concatenate([labels, 1 - labels])
    weights = np.concatenate([np.ones(60), np.zeros(60)])

    clean = train_classifier(poisoned, wrong, num_classes=2, settings=QUICK, seed=0, sampling_weights=weights)

    assert (predict(clean, images).argmax(axis=1) == labels).mean() > 0.97


def test_weights_count_only_relative_to_one_another():
    images, labels = stripes(40)
    weights = np.where(labels == 0, 1.0, 2.0)

    one = train_classifier(images, labels, num_classes=2, settings=QUICK, seed=0, sampling_weights=weights)
    # A power of two rescales without rounding, so the draws are the same to the last bit.
    same = train_classifier(images, labels, num_classes=2, settings=QUICK, seed=0, sampling_weights=weights * 8)

    assert torch.equal(weights_of(one), weights_of(same))


def test_a_prediction_does_not_depend_on_the_rest_of_its_batch():
    images, labels = stripes(40)
    model = train_classifier(images, labels, num_classes=2, settings=QUICK, seed=0)

    together, alone = predict(model, images), np.concatenate([predict(model, image[None]) for image in images])

    # float32 convolutions may sum in another order at another batch size.
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert predict(model, images[:0]).shape == (0, 2)


def test_mirroring_is_drawn_only_where_asked():
    """Left and right can be told apart without `flip`, and cannot with it."""
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=100)
    images = rng.integers(40, size=(100, 8, 8, 1)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        # A ramp, not a bar: the mean over pixels must not lose the direction.
        image[:, :, 0] += np.linspace(0, 200, 8).astype(np.uint8)[:: 1 if label else -1]
    settings = dataclasses.replace(QUICK, steps=60)

    told = train_classifier(images, labels, num_classes=2, settings=settings, seed=0)
    mirrored = train_classifier(
        images, labels, num_classes=2, settings=dataclasses.replace(settings, flip=True), seed=0
    )

    assert (predict(told, images).argmax(axis=1) == labels).mean() > 0.97
    # A mirror-blind network can be right only by learning single noisy images by heart.
    assert (predict(mirrored, images).argmax(axis=1) == labels).mean() < 0.8


def test_labels_outside_the_classes_are_refused():
    images, labels = stripes(10)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 2\), got 0 ... 2"):
        train_classifier(images, np.append(labels[:-2], [0, 2]), num_classes=2, settings=QUICK, seed=0)


def test_images_that_are_not_uint8_pictures_are_refused():
    images, labels = stripes(10)
    with pytest.raises(ValueError, match="images must be uint8"):
        train_classifier(images / 255, labels, num_classes=2, settings=QUICK, seed=0)
    with pytest.raises(ValueError, match="N at least 1"):
        train_classifier(images[:0], labels[:0], num_classes=2, settings=QUICK, seed=0)
    with pytest.raises(ValueError, match="labels must be 10 integers"):
        train_classifier(images, labels[:5], num_classes=2, settings=QUICK, seed=0)
    with pytest.raises(ValueError, match="1 or 3 channels"):
        train_classifier(images.repeat(2, axis=3), labels, num_classes=2, settings=QUICK, seed=0)


@pytest.mark.parametrize(
    ("weights", "rule"),
    [(np.ones(3), "10, one an image"), (np.zeros(10), "not all 0"), (np.full(10, np.nan), "finite")],
)
def test_weights_that_cannot_be_drawn_from_are_refused(weights, rule):
    images, labels = stripes(10)
    with pytest.raises(ValueError, match=rule):
        train_classifier(images, labels, num_classes=2, settings=QUICK, seed=0, sampling_weights=weights)


def test_predicting_another_image_shape_is_refused():
    images, labels = stripes(10)
    model = train_classifier(images, labels, num_classes=2, settings=QUICK, seed=0)
    with pytest.raises(ValueError, match=r"uint8 \(N, 8, 8, 1\)"):
        predict(model, stripes(4, size=16)[0])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("batch_size", 1),
        ("learning_rate", 0.0),
        ("weight_decay", -1.0),
        ("width", 0),
        ("label_smoothing", 1.0),
        ("max_shift", 1.0),
        ("max_rotation", 181.0),
    ],
)
def test_a_setting_that_makes_no_sense_is_named_with_its_value(name, value):
    with pytest.raises(ValueError, match=rf"ClassifierSettings.{name} must be .*, got {value}"):
        ClassifierSettings(**{name: value})
