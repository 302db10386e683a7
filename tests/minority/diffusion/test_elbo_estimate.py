import numpy as np
import pytest
import torch

from benchmarks.elbo_estimate import estimate_negative_elbo, step_importance
from minority.diffusion.noise import SampleNoise
from minority.diffusion.pixels import from_pixels, to_pixels
from minority.diffusion.score import negative_elbo

SHAPE = (1, 4, 4)


@pytest.fixture
def images(mixture):
    generator = torch.Generator().manual_seed(0)
    mode = torch.arange(12) % 3 == 0
    x = mixture.means[mode.long()].float() + 0.15 * torch.randn((12, *SHAPE), generator=generator)
    return from_pixels(to_pixels(x))


def noise_of(images, start=0):
    return SampleNoise(7, range(start, start + len(images)), shape=SHAPE)


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
