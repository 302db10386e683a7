import math

import numpy as np
import pytest
import torch

from minority.diffusion.denoiser import Prediction
from minority.diffusion.noise import SampleNoise
from minority.diffusion.pixels import from_pixels, to_pixels
from minority.diffusion.schedule import NoiseSchedule
from minority.diffusion.score import minority_profile, minority_score, negative_elbo

SHAPE = (1, 4, 4)


@pytest.fixture
def images(mixture):
    generator = torch.Generator().manual_seed(0)
    mode = torch.arange(12) % 3 == 0
    x = mixture.means[mode.long()].float() + 0.15 * torch.randn((12, *SHAPE), generator=generator)
    return from_pixels(to_pixels(x))


def noise_of(images, start=0):
    return SampleNoise(7, range(start, start + len(images)), shape=SHAPE)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("respacing", [200, 13])
def test_the_weighted_scores_sum_to_the_simplified_negative_elbo(kind, respacing, make_mixture, images):
    trained = getattr(NoiseSchedule, kind)(200)
    means = np.stack([np.full(SHAPE, -0.5), np.full(SHAPE, 0.5)])
    mixture = make_mixture(trained, means, [0.9, 0.1], 0.15)
    schedule = trained.respaced(respacing)

    scores, errors = minority_profile(mixture, schedule, images.double(), noise_of(images))

    assert scores.dtype == errors.dtype == torch.float64
    weight = torch.from_numpy(schedule.abar / (1 - schedule.abar))
    weighted, simplified = (weight * scores).sum(dim=1), errors.sum(dim=1)
    # The factor is 1 for the sum over steps; each single term agrees as well.
    assert float((weighted / simplified - 1).abs().max()) < 1e-6
    torch.testing.assert_close(weight * scores, errors, rtol=1e-6, atol=1e-9)


def test_the_proposition_holds_for_any_denoiser(images):
    def denoiser(x_t, timestep, label):
        return Prediction(torch.sin(3 * x_t) + 0.1 * timestep.view(-1, 1, 1, 1) / 100)

    schedule = NoiseSchedule.linear(50)
    scores, errors = minority_profile(denoiser, schedule, images.double(), noise_of(images))

    weight = torch.from_numpy(schedule.abar / (1 - schedule.abar))
    assert float(((weight * scores).sum(dim=1) / errors.sum(dim=1) - 1).abs().max()) < 1e-6


def test_the_profile_holds_the_minority_score_of_its_step(mixture, trained, images):
    schedule = trained.respaced(10)

    scores, _ = minority_profile(mixture, schedule, images, noise_of(images))

    single = minority_score(mixture, schedule, images, noise_of(images), perturbations=(0.5,))
    torch.testing.assert_close(scores[:, 5], single)


def test_rare_images_score_higher(mixture, trained, images):
    score = minority_score(mixture, trained, images, noise_of(images), draws=8)

    rare = mixture.mode(images) == 1
    assert score[rare].mean() > 1.5 * score[~rare].mean()


def test_a_perfect_denoiser_s_bound_lies_above_the_entropy_and_falls_with_finer_steps(make_mixture):
    # One normal a pixel, discretised to 8 bits: bits/dim = log2(deviation * sqrt(2 pi e) * 127.5).
    trained = NoiseSchedule.cosine(200)
    normal = make_mixture(trained, np.zeros((1, *SHAPE)), [1.0], 0.2)
    x = from_pixels(to_pixels(0.2 * torch.randn((64, *SHAPE), generator=torch.Generator().manual_seed(0))))
    noise = SampleNoise(0, range(64), shape=SHAPE)

    fine = float(negative_elbo(normal, trained, x, noise).total.mean())
    coarse = float(negative_elbo(normal, trained.respaced(20), x, noise).total.mean())

    entropy = math.log2(0.2 * math.sqrt(2 * math.pi * math.e) * 127.5)
    # Entropy of 1,024 pixels: two standard errors are 2 log2(e) / sqrt(2 * 1024).
    assert entropy - 0.07 < fine < coarse
