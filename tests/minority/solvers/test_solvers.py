"""Solvers against closed forms: the mixture's own distribution, the exact path of the ODE, and diffusers."""

import math
import warnings

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from scipy import stats

from minority.diffusion.denoiser import Prediction
from minority.diffusion.noise import SampleNoise
from minority.guidance.self_guidance import SelfGuidance
from minority.sampling.sampler import sample
from minority.solvers.ancestral import Ancestral
from minority.solvers.ddim import Ddim
from minority.solvers.dpm_solver import DpmSolver
from minority.solvers.renoise import Renoise

DEVIATION = 0.15
SOLVERS = {
    "ancestral, small variance": (Ancestral(), "fixed_small"),
    "ancestral, large variance": (Ancestral(), "fixed_large"),
    "ddim": (Ddim(), "fixed_small"),
    "ddim, eta 0.5": (Ddim(eta=0.5), "fixed_small"),
    "ddim, eta 1": (Ddim(eta=1.0), "fixed_small"),
    "dpm-solver": (DpmSolver(), "fixed_small"),
}


def one_pixel(make_mixture, trained):
    return make_mixture(trained, np.array([-0.5, 0.5]).reshape(2, 1, 1, 1), [0.9, 0.1], DEVIATION)


@pytest.mark.parametrize("name", SOLVERS)
def test_unguided_samples_follow_the_distribution(name, make_mixture, trained):
    solver, variance = SOLVERS[name]

    x, _ = sample(
        one_pixel(make_mixture, trained),
        trained,
        SampleNoise(0, range(1000), shape=(1, 1, 1)),
        solver=solver,
        variance=variance,
    )

    pixel = x.flatten().numpy()
    quantile = 0.9 * stats.norm.cdf((pixel + 0.5) / DEVIATION) + 0.1 * stats.norm.cdf((pixel - 0.5) / DEVIATION)
    counts, _ = np.histogram(quantile, bins=10, range=(0, 1))
    assert stats.chisquare(counts).pvalue > 0.01


def test_ddim_with_eta_one_is_the_ancestral_sampler(mixture, trained):
    noise = SampleNoise(1, range(8), shape=(1, 4, 4))
    schedule = trained.respaced(20)

    ddim, _ = sample(mixture, schedule, noise, solver=Ddim(eta=1.0))
    ancestral, _ = sample(mixture, schedule, noise, solver=Ancestral(), variance="fixed_small")

    torch.testing.assert_close(ddim, ancestral, atol=1e-5, rtol=0)


class DoubleNoise(SampleNoise):
    """The same noise in float64, so that the whole chain is walked in it."""

    def start(self):
        return super().start().double()

    def ancestral(self, step):
        return super().ancestral(step).double()


@pytest.mark.parametrize("clip_x0", [False, True])
@pytest.mark.parametrize("eta", [0.0, 0.3, 0.7, 1.0, 5.0])
def test_ddim_steps_as_its_formula_says(eta, clip_x0, mixture, trained):
    noise, kept = DoubleNoise(2, range(4), shape=(1, 4, 4)), trained.respaced(12)

    ours, _ = sample(mixture, kept, noise, solver=Ddim(eta=eta, clip_x0=clip_x0))

    # Song, Meng & Ermon 2021, equations 12 and 16.
    x = noise.start()
    for i in reversed(range(12)):
        abar, before = trained.abar[kept.timesteps[i]], 1.0 if i == 0 else trained.abar[kept.timesteps[i - 1]]
        eps = mixture(x, torch.full((4,), int(kept.timesteps[i])), None).eps
        x0 = (x - math.sqrt(1 - abar) * eps) / math.sqrt(abar)
        if clip_x0:
            x0 = x0.clamp(-1, 1)
            eps = (x - math.sqrt(abar) * x0) / math.sqrt(1 - abar)
        variance = eta**2 * (1 - before) / (1 - abar) * (1 - abar / before)
        variance = min(variance, 1 - before)  # for eta above 1, where the formula may have no real root
        x = math.sqrt(before) * x0 + math.sqrt(1 - before - variance) * eps + math.sqrt(variance) * noise.ancestral(i)
    assert ours.dtype == torch.float64
    # The deviation is handed to the loop in fp32: 6e-8 of it a step, through twelve steps.
    torch.testing.assert_close(ours, x, atol=2e-6, rtol=0)


def ancestral_step(x, x0, z, *, abar, before):
    """Ho, Jain & Abbeel 2020, equation 7 and the smaller of the two variances."""
    beta = 1 - abar / before
    mean = math.sqrt(before) * beta / (1 - abar) * x0 + math.sqrt(1 - beta) * (1 - before) / (1 - abar) * x
    return mean + math.sqrt(beta * (1 - before) / (1 - abar)) * z


def renoise_step(x, x0, z, *, abar, before):
    """Song et al. 2023, algorithm 1."""
    return math.sqrt(before) * x0 + math.sqrt(1 - before) * z


@pytest.mark.parametrize("clip_x0", [False, True])
@pytest.mark.parametrize(("kind", "step"), [(Ancestral, ancestral_step), (Renoise, renoise_step)])
def test_stochastic_solvers_step_as_their_formulas_say(kind, step, clip_x0, trained):
    def loud(x_t, timestep, label):
        """Clean estimates far beyond the pixels' range."""
        return Prediction(eps=0.2 * x_t)

    noise, kept = DoubleNoise(4, range(3), shape=(1, 4, 4)), trained.respaced(8)

    ours, _ = sample(loud, kept, noise, solver=kind(clip_x0=clip_x0), variance="fixed_small")

    x = noise.start()
    for i in reversed(range(8)):
        abar, before = trained.abar[kept.timesteps[i]], 1.0 if i == 0 else trained.abar[kept.timesteps[i - 1]]
        x0 = (x - math.sqrt(1 - abar) * 0.2 * x) / math.sqrt(abar)
        x = step(x, x0.clamp(-1, 1) if clip_x0 else x0, noise.ancestral(i), abar=abar, before=before)
    torch.testing.assert_close(ours, x, atol=2e-6, rtol=2e-6)


def test_a_solver_says_whether_it_adds_noise():
    assert [solver.is_stochastic for solver in (Ancestral(), Renoise(), Ddim(eta=0.1))] == [True] * 3
    assert [solver.is_stochastic for solver in (Ddim(), DpmSolver())] == [False] * 2


def test_deterministic_solvers_draw_no_noise_but_the_start(mixture, trained):
    class StartOnly(SampleNoise):
        def ancestral(self, step):
            raise AssertionError("a deterministic solver asked for noise")

    for solver in (Ddim(), DpmSolver()):
        x, _ = sample(mixture, trained.respaced(5), StartOnly(0, [0], shape=(1, 4, 4)), solver=solver)
        assert torch.isfinite(x).all()


def test_the_solver_of_second_order_is_nearer_to_the_exact_path(make_mixture, trained):
    # One normal: the flow keeps the standardised state, so the end of the path is known.
    normal = make_mixture(trained, np.full((1, 1, 1, 1), 0.2), [1.0], 0.3)
    noise = SampleNoise(3, range(50), shape=(1, 1, 1))
    start, last = noise.start(), float(trained.abar[-1])
    spread = math.sqrt(last * 0.3**2 + 1 - last)
    exact = 0.2 + 0.3 * (start - math.sqrt(last) * 0.2) / spread

    def error(solver, steps):
        x, _ = sample(normal, trained.respaced(steps), noise, solver=solver)
        return float((x - exact).abs().mean())

    first, second = Ddim(clip_x0=False), DpmSolver(clip_x0=False)
    for steps in ("logsnr10", "logsnr20"):
        assert error(second, steps) < 0.2 * error(first, steps)
    assert error(second, 200) < 1e-3


def test_dpm_solver_steps_as_the_reference_implementation(mixture, trained):
    schedule = trained.respaced(12)
    reference = DPMSolverMultistepScheduler(
        num_train_timesteps=200, trained_betas=trained.beta.tolist(), solver_order=2, final_sigmas_type="zero"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # diffusers hands a tensor to numpy
        reference.set_timesteps(timesteps=schedule.timesteps[::-1].copy())
    noise = SampleNoise(0, range(4), shape=(1, 4, 4))

    x, _ = sample(mixture, schedule, noise, solver=DpmSolver(clip_x0=False))

    state = noise.start()
    for t in reference.timesteps:
        state = reference.step(mixture(state, t.expand(4), None).eps, t, state).prev_sample
    torch.testing.assert_close(x, state, atol=1e-3, rtol=0)


@pytest.mark.parametrize("solver", [Ddim(), Ddim(eta=0.5), DpmSolver()])
def test_guidance_raises_the_rare_share_under_every_solver(solver, mixture, trained):
    noise = SampleNoise(0, range(200), shape=(1, 4, 4))
    guidance = [SelfGuidance(scale=4.0, perturbation=0.5)]

    plain, _ = sample(mixture, trained.respaced(25), noise, solver=solver)
    guided, _ = sample(mixture, trained.respaced(25), noise, solver=solver, guidance=guidance)

    shares = [float((mixture.mode(x) == 1).float().mean()) for x in (plain, guided)]
    # Five standard errors of the plain share of 0.1 over 200 chains.
    assert shares[1] > shares[0] + 5 * math.sqrt(0.1 * 0.9 / 200)


@pytest.mark.parametrize("count", [2, 7, 20, 150, 200])
def test_steps_even_in_log_snr_are_as_many_as_asked(count, trained):
    kept = trained.respaced(f"logsnr{count}")

    assert kept.num_steps == count
    assert (kept.timesteps[0], kept.timesteps[-1]) == (0, 199)
    if count == 7:
        half_log_snr = 0.5 * np.log(kept.abar / (1 - kept.abar))[:-1]
        np.testing.assert_allclose(np.diff(half_log_snr), np.diff(half_log_snr).mean(), rtol=0.05)


@pytest.mark.parametrize("steps", ["logsnr1", "logsnr500", "logsnrX", "ten", "10,x"])
def test_steps_that_mean_nothing_are_refused(steps, trained):
    with pytest.raises(ValueError, match=r"cannot keep|steps must be a number"):
        trained.respaced(steps)


def test_negative_eta_is_refused():
    with pytest.raises(ValueError, match="eta must not be negative, got -1"):
        Ddim(eta=-1)
