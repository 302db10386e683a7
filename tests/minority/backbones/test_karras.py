import math

import numpy as np
import pytest
import torch

from minority.backbones.karras import KarrasDenoiser, karras_schedule, precondition
from minority.diffusion.noise import SampleNoise
from minority.guidance.self_guidance import SelfGuidance
from minority.sampling.sampler import sample
from minority.solvers.dpm_solver import DpmSolver

MEAN, DEVIATION = 0.3, 0.2


def exact(x, sigma, label):
    """The ideal denoiser of a normal, in the coordinates of Karras et al."""
    wide = sigma.view(-1, 1, 1, 1) ** 2
    return (DEVIATION**2 * x + wide * MEAN) / (DEVIATION**2 + wide)


def test_a_preconditioned_network_is_the_ideal_denoiser_when_it_predicts_its_target():
    sigma_data = 0.5

    def network(scaled, condition, label):
        sigma = torch.exp(4 * condition)
        total = (sigma**2 + sigma_data**2).view(-1, 1, 1, 1)
        x = scaled * total.sqrt()
        skip = sigma_data**2 / total * x
        return (exact(x, sigma, label) - skip) * total.sqrt() / (sigma.view(-1, 1, 1, 1) * sigma_data)

    x, sigma = torch.randn((5, 1, 2, 2)), torch.tensor([0.01, 0.1, 1.0, 10.0, 80.0])

    torch.testing.assert_close(
        precondition(network, sigma_data=sigma_data)(x, sigma, None), exact(x, sigma, None), atol=1e-4, rtol=1e-4
    )


def test_the_denoiser_s_two_answers_agree_on_the_chain():
    schedule = karras_schedule(50)
    denoiser = KarrasDenoiser(exact, schedule)
    x_t = torch.randn((3, 1, 2, 2), dtype=torch.float64)

    for step in (0, 20, 49):
        prediction = denoiser(x_t, schedule.timestep(step, 3), None)
        torch.testing.assert_close(
            schedule.x0_from_eps(x_t, step, prediction.eps), prediction.x0_hat, atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("guidance", [[], [SelfGuidance(scale=0.5)]])
def test_samples_follow_the_distribution(guidance):
    schedule = karras_schedule(64)

    x, _ = sample(
        KarrasDenoiser(exact, schedule),
        schedule,
        SampleNoise(0, range(500), shape=(1, 1, 1)),
        solver=DpmSolver(),
        guidance=guidance,
    )

    assert torch.isfinite(x).all()
    if not guidance:
        # Three standard errors of a mean and of a deviation of 500 draws.
        assert float(x.mean()) == pytest.approx(MEAN, abs=3 * DEVIATION / math.sqrt(500))
        assert float(x.std()) == pytest.approx(DEVIATION, abs=3 * DEVIATION / math.sqrt(1000))


def test_the_schedule_has_the_published_levels():
    schedule = karras_schedule(18)
    sigma = np.sqrt((1 - schedule.abar) / schedule.abar)

    assert sigma[0] == pytest.approx(0.002)
    assert sigma[-1] == pytest.approx(80)
    np.testing.assert_allclose(np.diff(sigma ** (1 / 7)), np.diff(sigma ** (1 / 7)).mean(), rtol=1e-6)
    with pytest.raises(ValueError, match="0 < sigma_min < sigma_max"):
        karras_schedule(18, sigma_min=2, sigma_max=1)
