"""Self-guidance against an independent, plain statement of the published loop, option by option."""

import numpy as np
import pytest
import torch

from benchmarks.published_loop import PublishedGuidance, PublishedLoop
from minority.backbones import UNetDenoiser, UNetSettings
from minority.diffusion.noise import SampleNoise
from minority.diffusion.schedule import NoiseSchedule
from minority.guidance.self_guidance import SelfGuidance
from minority.sampling.sampler import sample
from tests.tiny_networks import tiny_unet

SHAPE = (1, 8, 8)
TRAINED = NoiseSchedule.linear(100)


def network(*, learns_variance, classes=None):
    unet = tiny_unet(widths=(8, 16), attention=True, out_channels=2 if learns_variance else 1, num_class_embeds=classes)
    return unet.eval().requires_grad_(False)


def published(unet, noise, *, respaced, options, fixed, learned="range", label=None):
    loop = PublishedLoop(
        lambda x, t, y: unet(x, t, class_labels=y).sample,
        trained_betas=np.linspace(10 * 1e-4, 10 * 0.02, 100),
        timesteps=respaced.timesteps,
        fixed_variance=fixed,
        learned_variance=learned,
        guidance=PublishedGuidance(**options),
    )
    return loop.draw(noise, label=label)


BASE = {
    "mg_scale": 2.0,
    "inter_rate": 3,
    "t_mid": -1.0,
    "p_ratio": 0.5,
    "num_mc_samples": 1,
    "mg_scale_type": "var",
    "use_normed_grad": True,
    "mg_clip_denoised": False,
}


@pytest.mark.parametrize(
    ("changes", "learns_variance", "fixed"),
    [
        ({}, True, "small"),
        ({}, "freely", "small"),
        ({"mg_clip_denoised": True, "num_mc_samples": 2}, "freely", "small"),
        ({}, False, "small"),
        ({}, False, "large"),
        ({"num_mc_samples": 3, "inter_rate": 1}, True, "small"),
        ({"mg_clip_denoised": True}, True, "small"),
        (
            {"mg_clip_denoised": True, "use_normed_grad": False, "mg_scale_type": "fixed", "mg_scale": 0.05},
            True,
            "small",
        ),
        ({"use_normed_grad": False, "norm_for_mg": 1.0, "mg_scale": 0.01}, True, "small"),
        ({"use_normed_grad": False, "norm_for_mg": 3.0, "mg_scale": 1.0}, False, "large"),
        ({"t_mid": 0.5, "inter_rate": 1}, True, "small"),
        ({"t_mid": 0.6, "inter_rate": 2}, True, "small"),
        ({"t_mid": 0.0, "inter_rate": 2}, False, "small"),
        ({"mg_scale_type": "fixed", "mg_scale": 0.1, "p_ratio": 0.8}, False, "small"),
        ({"p_ratio": 0.0}, True, "small"),
    ],
)
@pytest.mark.parametrize("respacing", [10, "3,7"])
def test_every_option_means_what_it_means_in_the_published_loop(changes, learns_variance, fixed, respacing):
    options = BASE | {"norm_for_mg": 2.0} | changes
    respaced = TRAINED.respaced(respacing)
    unet = network(learns_variance=bool(learns_variance))
    learned = "log" if learns_variance == "freely" else "range"
    denoiser = UNetDenoiser(unet, TRAINED, settings=UNetSettings(variance_type=f"learned_{learned}"))
    noise = SampleNoise(0, range(3), shape=SHAPE)

    ours, _ = sample(
        denoiser,
        respaced,
        noise,
        guidance=[guidance_of(options)],
        variance="learned_range" if learns_variance else f"fixed_{fixed}",
    )

    theirs = published(unet, noise, respaced=respaced, options=options, fixed=fixed, learned=learned)
    unguided, _ = sample(denoiser, respaced, noise)
    # fp32 against fp32, ten steps.
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)
    assert not torch.allclose(ours, unguided, atol=1e-4)


def test_class_labels_reach_the_step_and_the_metric():
    options = BASE | {"norm_for_mg": 2.0}
    respaced = TRAINED.respaced(10)
    unet = network(learns_variance=True, classes=4)
    noise, label = SampleNoise(0, range(3), shape=SHAPE), torch.tensor([0, 3, 1])

    denoiser = UNetDenoiser(unet, TRAINED, settings=UNetSettings(num_classes=4))
    ours, _ = sample(denoiser, respaced, noise, label=label, guidance=[guidance_of(options)])

    theirs = published(unet, noise, respaced=respaced, options=options, fixed="small", label=label)
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


def guidance_of(options):
    return SelfGuidance(
        scale=options["mg_scale"],
        interval=options["inter_rate"],
        perturbation=options["p_ratio"],
        above=options["t_mid"],
        draws=options["num_mc_samples"],
        norm=options["norm_for_mg"],
        scaling="variance" if options["mg_scale_type"] == "var" else "fixed",
        normalise=options["use_normed_grad"],
        clip_x0=options["mg_clip_denoised"],
    )
