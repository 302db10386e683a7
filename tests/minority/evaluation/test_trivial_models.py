import itertools

import numpy as np
import pytest

from minority.evaluation.baseline_models import PixelHistogram, PixelNormal, draw_class_normals, pick_of_classes


def scans(count, *, seed=0, levels=17):
    """Two pixels a side, few grey levels, each pixel with odds of its own."""
    rng = np.random.default_rng(seed)
    return (rng.binomial(levels - 1, [[0.1, 0.4], [0.6, 0.9]], size=(count, 2, 2)) * 15).astype(np.uint8)[..., None]


@pytest.mark.parametrize("model", [PixelHistogram, PixelNormal])
def test_code_lengths_are_those_of_a_distribution_over_all_images(model):
    train = scans(30)[:, :1, :1]

    bits = model(train).bits_per_dim(np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1))

    assert np.exp2(-bits).sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("model", [PixelHistogram, PixelNormal])
def test_pixels_are_coded_one_by_one(model):
    fitted = model(scans(40))
    image = scans(1, seed=5)

    alone = [model(scans(40)[:, i : i + 1, j : j + 1]) for i, j in itertools.product(range(2), repeat=2)]

    if model is PixelNormal:  # the histogram pools its pixels, so that one alone knows less
        each = [part.bits_per_dim(image[:, k // 2 : k // 2 + 1, k % 2 : k % 2 + 1])[0] for k, part in enumerate(alone)]
        assert fitted.bits_per_dim(image)[0] == pytest.approx(np.mean(each), abs=1e-12)
    assert fitted.bits_per_dim(image).shape == (1,)


def test_the_histogram_comes_near_the_entropy_of_the_pixels():
    def entropy(p, n=16):
        k = np.arange(n + 1)
        log_choose = np.cumsum(np.log(np.concatenate([[1], (n - k[1:] + 1) / k[1:]])))
        odds = np.exp(log_choose + k * np.log(p) + (n - k) * np.log(1 - p))
        return -(odds * np.log2(odds)).sum()

    truth = np.mean([entropy(p) for p in (0.1, 0.4, 0.6, 0.9)])

    found = PixelHistogram(scans(4000)).bits_per_dim(scans(4000, seed=1)).mean()

    # 4000 x 4 values: a standard error of some 0.01 bits, and some 10 fitted numbers a pixel cost 10 / 4000 / 2 nats.
    assert truth - 0.03 < found < truth + 0.05


def test_the_histogram_is_less_surprised_by_what_it_saw_and_never_struck_dumb():
    train, unseen = scans(20), np.full((1, 2, 2, 1), 7, np.uint8)
    histogram = PixelHistogram(train)

    assert histogram.bits_per_dim(train).mean() < histogram.bits_per_dim(scans(200, seed=1)).mean()
    assert np.isfinite(histogram.bits_per_dim(unseen)).all()
    assert histogram.bits_per_dim(unseen)[0] > 8


def test_the_normal_model_reaches_the_entropy_of_normal_pixels():
    rng = np.random.default_rng(0)
    images = np.clip(np.rint(rng.normal(128, 12, size=(6000, 2, 2, 1))), 0, 255).astype(np.uint8)

    found = PixelNormal(images[:3000]).bits_per_dim(images[3000:]).mean()

    # Differential entropy of the normal, as bins are one level wide; 1 % for the even share costs log2(1 / 0.99).
    assert found == pytest.approx(np.log2(12 * np.sqrt(2 * np.pi * np.e)) + np.log2(1 / 0.99), abs=0.02)


def test_class_normals_have_the_mean_and_the_covariance_of_their_class():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(4, 4)) * 6
    flat = np.concatenate([100 + rng.normal(size=(300, 4)) @ mixing.T, 160 + rng.normal(size=(300, 4)) @ mixing])
    images = np.clip(np.rint(flat), 0, 255).astype(np.uint8).reshape(600, 2, 2, 1)
    labels = np.repeat([0, 1], 300)

    drawn = draw_class_normals(images, labels, wanted=np.repeat([1, 0], 4000), seed=3)

    for label, part in ((1, drawn[:4000]), (0, drawn[4000:])):
        real = images[labels == label].reshape(-1, 4).astype(float)
        made = part.reshape(-1, 4).astype(float)
        assert np.abs(made.mean(axis=0) - real.mean(axis=0)).max() < 0.8
        assert np.abs(np.cov(made.T) - np.cov(real.T)).max() < 0.1 * np.cov(real.T).max()


def test_a_class_of_one_image_is_that_image():
    image = scans(1)

    drawn = draw_class_normals(image, np.array([0]), wanted=np.zeros(3, np.int64), seed=0)

    assert (drawn == image).all()


def test_training_images_are_picked_by_class_and_repeat_only_where_they_must():
    labels = np.array([0, 0, 0, 1, 1, 2])

    picked = pick_of_classes(labels, wanted=np.array([0, 1, 0, 1, 2, 2, 0, 1]), seed=0)

    assert labels[picked].tolist() == [0, 1, 0, 1, 2, 2, 0, 1]
    assert len(set(picked[labels[picked] == 0].tolist())) == 3
    assert picked[labels[picked] == 2].tolist() == [5, 5]
