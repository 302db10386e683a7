"""The zero-shot diffusion classifier on a conditional Gaussian, where every error has a closed form."""

import numpy as np
import pytest
import torch

from minority.backbones import Backbone
from minority.diffusion.denoiser import Prediction
from minority.diffusion.schedule import NoiseSchedule
from minority.sampling.diffusion_classifier import ZeroShotSettings, class_errors, class_probabilities

MEANS = torch.tensor([-0.5, 0.1, 0.6])
VARIANCE = 0.04
SHAPE = (1, 4, 4)
SCHEDULE = NoiseSchedule.cosine(100)


class ConditionalGaussian(torch.nn.Module):
    """The exact denoiser of pixels that are N(mean of the class, 0.04), independent of each other."""

    def forward(self, x_t, timestep, label):
        abar = torch.as_tensor(SCHEDULE.abar)[timestep].float().view(-1, 1, 1, 1)
        off = x_t - abar.sqrt() * MEANS[label].view(-1, 1, 1, 1)
        return Prediction(eps=(1 - abar).sqrt() * off / (abar * VARIANCE + 1 - abar))


def backbone(**changes):
    settings = {"name": "toy", "denoiser": ConditionalGaussian(), "schedule": SCHEDULE, "image_shape": SHAPE}
    return Backbone(**(settings | {"num_classes": 3, "sha256": "0" * 64} | changes))


def images_of(labels, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = MEANS[torch.as_tensor(labels)].view(-1, 1, 1, 1)
    x = x + VARIANCE**0.5 * torch.randn((len(labels), *SHAPE), generator=generator)
    return ((x.clamp(-1, 1) + 1) * 127.5).round().permute(0, 2, 3, 1).to(torch.uint8).numpy()


def errors_of(images, *, settings=None, **changes):
    options = {"seed": 0, "indices": range(len(images)), "settings": settings or ZeroShotSettings(levels=8)}
    return class_errors(backbone(), images, **(options | changes))


def test_it_recovers_the_labels_of_a_conditional_gaussian():
    labels = np.repeat([0, 1, 2], 40)
    images = images_of(labels)

    answer = errors_of(images).mean(axis=2).argmin(axis=1)

    # Bayes' classifier takes the nearest class mean; of 16 pixels its error is 2 in 10,000 here.
    bayes = np.abs(images.mean(axis=(1, 2, 3))[:, None] / 127.5 - 1 - MEANS.numpy()).argmin(axis=1)
    assert (answer == bayes).mean() > 0.97
    assert (answer == labels).mean() > 0.97


def test_the_difference_of_two_classes_is_the_closed_form():
    images = images_of([1])
    settings = ZeroShotSettings(levels=3, draws=2000, lowest=0.2, highest=0.8)

    found = errors_of(images, settings=settings)[0]  # (K, L)

    x = torch.as_tensor(images[0]).float() / 127.5 - 1
    for place, fraction in enumerate(settings.fractions):
        abar = SCHEDULE.abar[SCHEDULE.step_at(fraction)]
        # E |eps - eps_hat|^2 is c^2 abar (x - mean)^2 but for what no class changes; c as the denoiser has it.
        c = (1 - abar) ** 0.5 / (abar * VARIANCE + 1 - abar)
        expected = [float(c**2 * (x - mean).square().mean()) for mean in MEANS]
        # The noise of 2,000 x 16 draws: a few parts in a hundred of these differences.
        assert found[0, place] - found[1, place] == pytest.approx(expected[0] - expected[1], rel=0.05)
        assert found[2, place] - found[1, place] == pytest.approx(expected[2] - expected[1], rel=0.05)


def test_an_image_is_judged_alike_in_any_batch():
    images = images_of([0, 1, 2, 2, 1])

    together = errors_of(images)
    alone = errors_of(images[3:4], indices=[3])
    in_pairs = errors_of(images, batch_size=2)

    np.testing.assert_allclose(alone[0], together[3], rtol=1e-5)
    np.testing.assert_allclose(in_pairs, together, rtol=1e-5)


def test_only_the_classes_that_are_asked_about_are_tried():
    images = images_of([0, 1])

    np.testing.assert_allclose(errors_of(images, num_classes=2), errors_of(images)[:, :2], rtol=1e-5)


def test_probabilities_sum_to_one_and_agree_with_the_errors():
    errors = errors_of(images_of([0, 1, 2]))

    found = class_probabilities(errors, dimensions=16)

    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    np.testing.assert_array_equal(found.argmax(axis=1), errors.mean(axis=2).argmin(axis=1))


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"num_classes": None}, "takes no class labels"), ({"distilled": "to one step"}, "is distilled")],
)
def test_backbones_that_cannot_say_are_refused(changes, why):
    with pytest.raises(ValueError, match=why):
        class_errors(backbone(**changes), images_of([0]), seed=0, indices=[0], settings=ZeroShotSettings(levels=1))


@pytest.mark.parametrize("wrong", [{"levels": 0}, {"draws": 0}, {"lowest": 0.5, "highest": 0.4}, {"highest": 1.0}])
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match="ZeroShotSettings"):
        ZeroShotSettings(**wrong)
