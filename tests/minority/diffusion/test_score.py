import math

import numpy as np
import pytest
import torch

from minority.diffusion.denoiser import Prediction
from minority.diffusion.elbo_estimate import estimate_negative_elbo, step_importance
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


def test_the_estimate_from_few_steps_is_unbiased(mixture, trained, images):
    exact = torch.stack(
        [negative_elbo(mixture, trained, images, noise_of(images, start=100 * i)).total for i in range(20)]
    )

    for probabilities in (None, step_importance(mixture, trained, images, noise_of(images))):
        estimates = [
            estimate_negative_elbo(
                mixture,
                trained,
                images,
                noise_of(images, start=100 * i),
                draws=10,
                seed=i,
                probabilities=probabilities,
            )
            for i in range(40)
        ]
        means = torch.stack([estimate.total.mean() for estimate in estimates])
        error = means.std() / 40**0.5 + exact.mean(dim=1).std() / 20**0.5
        assert abs(means.mean() - exact.mean()) < 3 * error


def test_the_standard_error_is_the_spread_of_the_estimates(mixture, trained, images):
    p = step_importance(mixture, trained, images, noise_of(images))
    estimates = [
        estimate_negative_elbo(
            mixture, trained, images[:1], noise_of(images[:1], start=i), draws=20, seed=i, probabilities=p
        )
        for i in range(100)
    ]

    spread = torch.cat([estimate.total for estimate in estimates]).std()
    claimed = torch.cat([estimate.standard_error for estimate in estimates]).square().mean().sqrt()

    assert float(claimed / spread) == pytest.approx(1, abs=0.3)


def test_importance_sampling_narrows_the_estimate(mixture, trained, images):
    p = step_importance(mixture, trained, images, noise_of(images))

    def claimed(probabilities):
        errors = [
            estimate_negative_elbo(
                mixture, trained, images, noise_of(images), draws=20, seed=seed, probabilities=probabilities
            ).standard_error.mean()
            for seed in range(8)
        ]
        return float(torch.stack(errors).mean())

    assert p.shape == (200,)
    assert p.sum() == pytest.approx(1)
    assert p.min() >= 0.1 / 200 * 0.999
    assert claimed(p) < 0.6 * claimed(None)


def test_an_image_s_estimate_does_not_depend_on_its_batch(mixture, trained, images):
    together = estimate_negative_elbo(mixture, trained, images, noise_of(images), draws=4)
    alone = estimate_negative_elbo(mixture, trained, images[3:4], noise_of(images[3:4], start=3), draws=4)

    assert torch.equal(together.total[3:4], alone.total)
    assert np.array_equal(together.steps, alone.steps)


def test_estimates_that_cannot_be_made_are_refused(mixture, trained, images):
    with pytest.raises(ValueError, match="draws must be at least 2"):
        estimate_negative_elbo(mixture, trained, images, noise_of(images), draws=1)
    for wrong in (np.ones(200), np.full(10, 0.1), np.r_[0.0, np.full(199, 1 / 199)]):
        with pytest.raises(ValueError, match="probabilities must be 200 positive numbers"):
            estimate_negative_elbo(mixture, trained, images, noise_of(images), draws=2, probabilities=wrong)
    with pytest.raises(ValueError, match="uniform_share must lie"):
        step_importance(mixture, trained, images, noise_of(images), uniform_share=0)


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
