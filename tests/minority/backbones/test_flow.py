"""Rectified flow as a change of scale: exact, and sound down to pure noise."""

import numpy as np
import pytest
import torch

from minority.backbones.flow import FlowDenoiser, abar_of, flow_schedule, shifted
from minority.diffusion.noise import SampleNoise
from minority.diffusion.schedule import NoiseSchedule
from minority.diffusion.score import minority_profile, minority_score, negative_elbo
from minority.diffusion.space import StateSpace
from minority.guidance.boost_and_skip import BoostAndSkip
from minority.guidance.classifier_free import ClassifierFree
from minority.guidance.prune_and_branch import PruneAndBranch
from minority.guidance.self_guidance import SelfGuidance
from minority.sampling.edit import StartFromImages
from minority.sampling.sampler import sample
from minority.solvers.ancestral import Ancestral
from minority.solvers.ddim import Ddim
from minority.solvers.dpm_solver import DpmSolver

SHAPE = (1, 4, 4)
SPACE = StateSpace(bound=None, discretised=False)


class Double:
    """Sample noise in float64."""

    def __init__(self, *indices):
        self.noise = SampleNoise(0, indices, shape=SHAPE)

    def score(self, step, draw):
        return self.noise.score(step, draw).double()


def velocity_of_normal(x, share, label):
    """The exact velocity where clean states are normal around 0.3 (label 1: -0.6) with deviation 0.5."""
    s = share.view(-1, 1, 1, 1).to(x)
    mean = torch.full_like(s, 0.3) if label is None else torch.where(label.view(-1, 1, 1, 1) == 1, -0.6, 0.3).to(x)
    variance = (1 - s) ** 2 * 0.25 + s**2
    off = x - (1 - s) * mean
    return s * off / variance - mean - 0.25 * (1 - s) * off / variance


@pytest.fixture
def denoiser():
    return FlowDenoiser(velocity_of_normal)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_ratio_of_signal_to_noise_is_the_flows(shift):
    schedule = flow_schedule(shift=shift)
    s = schedule.timesteps

    assert s.dtype == np.float64
    assert np.allclose(schedule.abar / np.maximum(1 - schedule.abar, 1e-300), ((1 - s) / s) ** 2, rtol=1e-9)
    assert schedule.abar[-1] == 0
    assert schedule.timestep(3, 2).dtype == torch.float64


def test_the_estimates_are_those_of_a_known_distribution(denoiser):
    schedule = flow_schedule(50, shift=2.0)
    clean = torch.randn(3, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for step in (0, 20, 49):
        eps = torch.randn(3, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        x_t = schedule.noised(clean, step, eps)
        abar = float(schedule.abar[step])
        expected = 0.3 + abar**0.5 * 0.25 / (0.25 * abar + 1 - abar) * (x_t - abar**0.5 * 0.3)

        prediction = denoiser(x_t, schedule.timestep(step, 3), None)

        assert (prediction.x0_hat - expected).abs().max() < 1e-12
        together = abar**0.5 * prediction.x0_hat + (1 - abar) ** 0.5 * prediction.eps
        assert (together - x_t).abs().max() < 1e-12


def test_a_shorter_chain_follows_the_flows_own_law_and_knows_where_it_comes_from():
    schedule = flow_schedule(shift=3.0)

    short = schedule.respaced(7)

    assert np.allclose(short.timesteps[::-1], shifted(np.linspace(1, 1 / 7, 7), 3.0))
    assert np.allclose(short.abar, abar_of(short.timesteps))
    assert short.trained is schedule
    assert np.array_equal(schedule.respaced("7").abar, short.abar)
    assert set(schedule.respaced("logsnr20").timesteps) <= set(schedule.timesteps)


@pytest.mark.parametrize("sections", ["leading10", "trailing4", "late-leading10", 0])
def test_spacings_that_a_flow_has_not_are_refused(sections):
    with pytest.raises(ValueError, match=r"no numbered timesteps|one at least"):
        flow_schedule().respaced(sections)


def test_the_metrics_identity_holds_in_float64(denoiser):
    # Weighted by abar / (1 - abar) the scores are the squared errors of the noise (Um & Ye 2024), level by level.
    schedule = flow_schedule(shift=3.0).respaced(40)
    clean = torch.randn(2, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    scores, errors = minority_profile(denoiser, schedule, clean, Double(5, 6))

    weights = torch.from_numpy(schedule.abar / (1 - schedule.abar))
    assert (scores * weights - errors).abs().max() <= 1e-6 * errors.max()
    assert float(scores.min()) > 0


def test_the_elbos_identity_holds_in_float64(denoiser):
    # term_k = 1/2 (SNR_{k-1} - SNR_k) |x_0 - x0_hat|^2, in bits a dimension (Kingma et al. 2021).
    schedule = flow_schedule(shift=3.0).respaced(40)
    clean = torch.randn(2, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    bound = negative_elbo(denoiser, schedule, clean, Double(5, 6), space=SPACE)

    snr = schedule.abar / (1 - schedule.abar)
    scores, _ = minority_profile(denoiser, schedule, clean, Double(5, 6))
    expected = 0.5 * torch.from_numpy(snr[:-1] - snr[1:]) * scores[:, 1:] / (16 * np.log(2))
    assert ((bound.steps[:, 1:] - expected).abs() / expected).max() <= 1e-6
    assert (bound.prior == 0).all()  # at pure noise nothing of the image is left
    assert torch.isfinite(bound.total).all()


SOLVERS = [Ancestral(), Ddim(), Ddim(eta=1.0), DpmSolver()]
METHODS = {
    "plain": [],
    "self": [SelfGuidance(scale=1.0, interval=1, perturbation=0.5)],
    "self at the very end": [SelfGuidance(scale=1.0, interval=1, perturbation=0.99, scaling="fixed")],
    "jacobian-free": [SelfGuidance(scale=1.0, interval=1, perturbation=0.5, jacobian=False)],
    "boost": [BoostAndSkip(boost=2.0, skip=0.0)],
    "boost and skip": [BoostAndSkip(boost=2.0, skip=0.2)],
    "classifier-free": [ClassifierFree(scale=3.0)],
    "both": [ClassifierFree(scale=3.0), SelfGuidance(scale=1.0, interval=1, perturbation=0.9)],
    "edit": [StartFromImages(images=torch.zeros(4, *SHAPE), fraction=0.9)],
}


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("steps", [10, "logsnr10"])
def test_pure_noise_gives_no_nan(denoiser, solver, name, steps):
    schedule = flow_schedule(shift=3.0).respaced(steps)
    assert schedule.abar[-1] == 0

    x, _ = sample(
        denoiser,
        schedule,
        SampleNoise(0, range(4), shape=SHAPE),
        label=torch.tensor([0, 1, 0, 1]),
        guidance=METHODS[name],
        solver=solver,
        space=SPACE,
    )

    assert torch.isfinite(x).all()
    assert x.std() > 0


def test_pruning_and_scores_are_finite_from_pure_noise_on(denoiser):
    schedule = flow_schedule(shift=3.0)
    prune = PruneAndBranch(particle_group=2, keep=1, points=(0.1, 0.9), perturbation=0.9)

    x, _ = sample(
        denoiser,
        schedule.respaced(10),
        SampleNoise(0, range(4), shape=SHAPE),
        label=torch.zeros(4, dtype=torch.int64),
        guidance=[prune],
        space=SPACE,
    )
    score = minority_score(denoiser, schedule, x, SampleNoise(0, range(4), shape=SHAPE), perturbations=(0.5, 0.999))

    assert torch.isfinite(x).all()
    assert torch.isfinite(score).all()


def test_deterministic_solvers_reach_the_known_distribution(denoiser):
    schedule = flow_schedule(shift=1.0).respaced(200)
    noise = SampleNoise(0, range(400), shape=SHAPE)
    for solver in (Ddim(), DpmSolver()):
        x, _ = sample(denoiser, schedule, noise, solver=solver, space=SPACE)
        assert x.mean().item() == pytest.approx(0.3, abs=0.03)
        assert x.std().item() == pytest.approx(0.5, abs=0.03)


def test_a_numbered_model_without_signal_at_its_last_level_gives_no_nan():
    abar = np.concatenate([NoiseSchedule.cosine(50).abar[:-1], [0.0]])
    schedule = NoiseSchedule(abar=abar, timesteps=np.arange(50))
    flow = FlowDenoiser(velocity_of_normal)

    def denoiser(x_t, timestep, label):
        signal, noise = np.sqrt(abar[timestep[0]]), np.sqrt(1 - abar[timestep[0]])
        return flow(x_t, torch.full((len(x_t),), noise / (signal + noise), dtype=torch.float64), label)

    for solver in SOLVERS:
        x, _ = sample(denoiser, schedule, SampleNoise(0, [1], shape=SHAPE), solver=solver, space=SPACE)
        assert torch.isfinite(x).all()
