"""Bits/dim of real digits by the shipped backbone, beside a bound that is computed here from its definition."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.datasets import load_digits

from minority.backbones import load_backbone
from minority.diffusion.denoiser import Prediction
from minority.diffusion.noise import SampleNoise
from minority.evaluation.backbone_quality import bound_of
from minority.sampling.draw import ScoreSettings, score_images

STEPS, COUNT = 10, 6


@pytest.fixture(scope="module")
def digits():
    scans, labels = load_digits(return_X_y=True)
    chosen = slice(1300, 1300 + COUNT)
    images = (scans[chosen].reshape(-1, 8, 8, 1) * 255 / 16).round().astype(np.uint8)
    return load_backbone(Path(__file__).parents[3] / "backbones" / "digits"), images, labels[chosen]


def bits(digits, *, variance="auto", steps=STEPS):
    backbone, images, labels = digits
    settings = ScoreSettings(draws=1, elbo_steps=steps, variance=variance)
    return score_images(
        backbone, images, seed=3, indices=range(len(images)), labels=labels.tolist(), settings=settings
    ).negative_elbo


def bound_by_hand(digits, *, large):
    """(B,) bits/dim in float64: prior, KL divergences of the posteriors, and the first step's grey levels.

    Beta is the reverse variance where `large`, else the posterior's; at the last step both take the posterior
    variance of the step before it, as published.
    """
    backbone, images, labels = digits
    abar = backbone.schedule.respaced(STEPS).abar
    timesteps = backbone.schedule.respaced(STEPS).timesteps
    x0 = images.transpose(0, 3, 1, 2).astype(np.float64) / 127.5 - 1
    noise = SampleNoise(3, range(len(images)), shape=(1, 8, 8))
    nats = 0.5 * (abar[-1] * x0**2 + (1 - abar[-1]) - 1 - math.log(1 - abar[-1]))
    before = np.append(1.0, abar[:-1])
    beta = 1 - abar / before
    posterior = beta * (1 - before) / (1 - abar)
    for step in range(STEPS):
        eps = noise.score(step, 0).double().numpy()
        x_t = math.sqrt(abar[step]) * x0 + math.sqrt(1 - abar[step]) * eps
        with torch.no_grad():
            said = backbone.denoiser(
                torch.from_numpy(x_t).float(), torch.full((COUNT,), int(timesteps[step])), torch.from_numpy(labels)
            ).eps.double()
        guess = ((x_t - math.sqrt(1 - abar[step]) * said.numpy()) / math.sqrt(abar[step])).clip(-1, 1)
        to_x0 = math.sqrt(before[step]) * beta[step] / (1 - abar[step])
        to_xt = math.sqrt(abar[step] / before[step]) * (1 - before[step]) / (1 - abar[step])
        if step == 0:
            deviation, mean = math.sqrt(posterior[1]), to_x0 * guess + to_xt * x_t
            low = np.where(x0 < -0.999, -np.inf, x0 - 1 / 255)
            high = np.where(x0 > 0.999, np.inf, x0 + 1 / 255)
            chance = norm.cdf(high, mean, deviation) - norm.cdf(low, mean, deviation)
            nats = nats - np.log(np.maximum(chance, 1e-12))
        else:
            own = beta[step] if large else posterior[step]
            gap = (to_x0 * (guess - x0)) ** 2
            nats = nats + 0.5 * (math.log(own / posterior[step]) + (posterior[step] + gap) / own - 1)
    return nats.mean(axis=(1, 2, 3)) / math.log(2)


def test_the_default_is_the_bound_under_beta_of_a_backbone_that_learned_no_variance(digits):
    # The project's normal distribution is the published tanh formula, which differs from scipy's in the third digit.
    np.testing.assert_allclose(bits(digits), bound_by_hand(digits, large=True), rtol=5e-3)
    np.testing.assert_array_equal(bits(digits), bits(digits, variance="fixed_large"))


def test_real_digits_cost_a_few_bits_and_not_hundreds(digits):
    found = bits(digits)

    # Grey levels alone cost 8 bits a pixel.
    assert (found > 2).all()
    assert (found < 8).all()


def test_the_posterior_variance_is_the_one_that_gives_hundreds(digits):
    found = bits(digits, variance="fixed_small")

    np.testing.assert_allclose(found, bound_by_hand(digits, large=False), rtol=5e-3)
    assert found.mean() > 50


def test_evaluating_a_backbone_goes_by_the_same_rule(digits):
    backbone, images, labels = digits

    evaluated = bound_of(backbone, images, labels, steps=STEPS, seed=3)

    np.testing.assert_array_equal(evaluated, bits(digits))


@pytest.mark.parametrize("learned", ["variance_fraction", "log_variance"])
def test_a_learned_variance_is_taken_however_it_was_learned(make_tiny_backbone, learned):
    from dataclasses import replace

    plain = make_tiny_backbone()
    images = np.full((2, 8, 8, 1), 90, dtype=np.uint8)

    class Learns(torch.nn.Module):
        def forward(self, x_t, timestep, label=None):
            said = plain.denoiser(x_t, timestep, label)
            value = 0.3 if learned == "variance_fraction" else -4.0
            return Prediction(said.eps, x0_hat=said.x0_hat, **{learned: torch.full_like(said.eps, value)})

    def score(variance):
        return score_images(
            replace(plain, denoiser=Learns()),
            images,
            seed=0,
            indices=[0, 1],
            labels=[0, 1],
            settings=ScoreSettings(draws=1, elbo_steps=4, variance=variance),
        ).negative_elbo

    np.testing.assert_array_equal(score("auto"), score("learned_range"))
    assert not np.array_equal(score("auto"), score("fixed_large"))
