"""Guidance and scores where the chain walks latents."""

import math

import numpy as np
import pytest
import torch
from diffusers import LDMPipeline

from minority.backbones import load_backbone
from minority.diffusion.chain import Chain
from minority.diffusion.noise import SampleNoise
from minority.diffusion.schedule import NoiseSchedule
from minority.diffusion.score import negative_elbo
from minority.diffusion.space import StateSpace
from minority.guidance.jepa_guidance import JepaGuidanceSettings
from minority.guidance.low_density import LowDensitySettings
from minority.guidance.materials import Lessons
from minority.guidance.minority_guidance import MinorityGuidanceSettings
from minority.guidance.noise_aware_network import NoiseAwareSettings
from minority.guidance.prune_and_branch import PruneAndBranch
from minority.guidance.self_guidance import SelfGuidance
from minority.neighbours.reference import RealReference
from minority.sampling.draw import SamplerSettings, ScoreSettings, draw, score_images
from minority.sampling.edit import edit_images


@pytest.fixture(scope="module")
def backbone(tiny_pipelines, tmp_path_factory):
    pipeline = LDMPipeline(
        vqvae=tiny_pipelines.autoencoder(latent_channels=3),
        unet=tiny_pipelines.unet(),
        scheduler=tiny_pipelines.ddim(beta_end=0.005),
    )
    return load_backbone(tiny_pipelines.save(pipeline, tmp_path_factory.mktemp("latent") / "model"))


@pytest.fixture
def estimate(backbone):
    chain = Chain(backbone.denoiser, backbone.schedule, space=backbone.space)
    noise = SampleNoise(0, [0, 1], shape=backbone.state_shape)
    return chain.estimate(noise.start(), 500).detach(), chain, noise


def test_the_metric_in_image_space_climbs_the_distance_of_decoded_images(backbone, estimate):
    state, chain, noise = estimate
    method = SelfGuidance(scale=1.0, jacobian=False, space="image", scaling="fixed", normalise=False, perturbation=0.4)

    push = method.shift(state, chain, noise)

    x0 = state.x0_hat.clone().requires_grad_(True)
    step, abar = 400, float(backbone.schedule.abar[400])
    with torch.no_grad():
        x_s = abar**0.5 * x0 + (1 - abar) ** 0.5 * noise.perturbation(500, 0)
        again = chain.schedule.x0_from_eps(x_s, step, backbone.denoiser(x_s, torch.full((2,), step), None).eps)
        there = backbone.codec.autoencoder.decode(again / 0.5).sample
    here = backbone.codec.autoencoder.decode(x0 / 0.5).sample
    (here - there).flatten(1).norm(dim=1).sum().backward()
    torch.testing.assert_close(push, x0.grad, rtol=1e-3, atol=1e-5)


def test_the_two_spaces_of_the_metric_differ_for_latents_only(estimate, mixture, trained):
    state, chain, noise = estimate
    latent = [SelfGuidance(scale=1.0, jacobian=False, space=space).shift(state, chain, noise) for space in SPACES]
    assert not torch.allclose(*latent)

    chain = Chain(mixture, trained)
    noise = SampleNoise(0, [0, 1], shape=(1, 4, 4))
    state = chain.estimate(noise.start(), 100).detach()
    pixel = [SelfGuidance(scale=1.0, jacobian=False, space=space).shift(state, chain, noise) for space in SPACES]
    assert torch.equal(*pixel)


SPACES = ("state", "image")


@pytest.mark.parametrize(
    "settings",
    [
        SamplerSettings(steps=4, self_guidance=SelfGuidance(scale=1.0, interval=2)),
        SamplerSettings(steps=4, self_guidance=SelfGuidance(scale=1.0, interval=2, space="image")),
        SamplerSettings(steps=4, prune_and_branch=PruneAndBranch(particle_group=2, keep=1)),
        SamplerSettings(steps=4, prune_and_branch=PruneAndBranch(particle_group=2, keep=1, weight_by="features")),
    ],
    ids=["guided", "guided in image space", "pruned", "pruned by features"],
)
def test_every_method_draws_decoded_images(backbone, settings):
    real = np.random.default_rng(0).random((20, 16 * 16 * 3)).astype(np.float32)

    drawn = draw(backbone, seed=0, indices=range(4), labels=None, settings=settings, reference=RealReference.fit(real))

    assert drawn.images.shape == (4, 16, 16, 3)
    assert drawn.images.dtype == np.uint8


SHORT = NoiseAwareSettings(width=8, steps=2, batch_size=4)


@pytest.mark.parametrize(
    "method",
    [
        MinorityGuidanceSettings(levels=2, draws=1, training=SHORT, scale=50.0),
        LowDensitySettings(plain_samples=4, training=SHORT),
        JepaGuidanceSettings(top=2, interval=1, training=SHORT),
    ],
    ids=lambda method: method.key,
)
def test_what_learns_from_images_learns_from_their_latents(backbone, method):
    rng = np.random.default_rng(0)
    every = {"seed": 0, "indices": range(2), "labels": None}
    lessons = Lessons(
        backbone=backbone,
        images=rng.integers(0, 256, (12, 16, 16, 3), dtype=np.uint8),
        labels=np.arange(12) % 2,
        draw_plain=lambda labels: rng.integers(0, 256, (len(labels), 16, 16, 3), dtype=np.uint8),
    )
    parts = {}
    for name in method.part_names:
        parts[name] = method.train(name, lessons, parts)
    sampler = SamplerSettings(steps=4)

    guided = draw(backbone, settings=sampler.guided(method), parts={method.key: parts}, **every)

    assert lessons.states.shape[1:] == backbone.state_shape != (3, 16, 16)
    assert guided.images.shape == (2, 16, 16, 3)
    assert not np.array_equal(guided.images, draw(backbone, settings=sampler, **every).images)


def test_a_latent_sample_does_not_depend_on_its_batch(backbone):
    settings = SamplerSettings(steps=4, self_guidance=SelfGuidance(scale=1.0, interval=2))
    together = draw(backbone, seed=0, indices=[3, 1, 7], labels=None, settings=settings).images

    alone = draw(backbone, seed=0, indices=[1], labels=None, settings=settings).images

    assert np.abs(together[1].astype(int) - alone[0].astype(int)).max() <= 1


def test_latents_are_not_clipped_where_the_scheduler_does_not(backbone):
    states = torch.full((1, 3, 8, 8), 5.0)

    assert torch.equal(backbone.space.clipped(states), states)


def test_images_are_scored_and_edited_by_their_latents(backbone):
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)

    scores = score_images(
        backbone, images, seed=0, indices=[0, 1], labels=None, settings=ScoreSettings(elbo_steps=3, draws=1)
    )
    variants, _ = edit_images(
        backbone, images, seed=0, indices=[0, 1], labels=None, settings=SamplerSettings(steps=4), fraction=0.5
    )

    assert np.isfinite(scores.minority_score).all()
    assert np.isfinite(scores.negative_elbo).all()
    assert variants.shape == images.shape


def test_the_bound_of_a_standard_normal_is_its_entropy(make_mixture):
    schedule = NoiseSchedule.linear(50)
    exact = make_mixture(schedule, np.zeros((1, 1, 4, 4)), [1.0], 1.0)
    states = torch.randn((400, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    noise = SampleNoise(0, range(400), shape=(1, 4, 4))
    space = StateSpace(bound=None, discretised=False)

    bound = negative_elbo(exact, schedule, states, noise, variance="fixed_large", space=space)

    # Of a standard normal the true reverse variance is beta, so the bound is tight, but for the last step, which
    # borrows the posterior variance of the step before it instead of its own beta.
    ratio = float(schedule.posterior_variance[1] / schedule.beta[0])
    loss = 0.5 * (math.log(ratio) + 1 / ratio - 1)
    expected = (0.5 * math.log(2 * math.pi * math.e) + loss) / math.log(2)
    # Three standard errors of the 6400 squares that the last step's term averages.
    assert float(bound.total.mean()) == pytest.approx(expected, abs=3 * math.sqrt(2 / 6400) / ratio / math.log(2))
