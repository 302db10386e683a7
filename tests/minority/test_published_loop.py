"""Self-guidance against an independent, plain statement of the published loop, option by option."""

import math

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel

from minority.backbones import UNetDenoiser, UNetSettings
from minority.guidance.self_guidance import SelfGuidance
from minority.noise import SampleNoise
from minority.sampler import sample
from minority.schedule import NoiseSchedule

SHAPE = (1, 8, 8)
TRAINED = NoiseSchedule.linear(100)


def tiny_unet(*, learns_variance, classes=None):
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=2 if learns_variance else 1,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=8,
        num_class_embeds=classes,
    )
    return unet.eval().requires_grad_(False)


def published(unet, noise, *, respaced, options, learns_variance, fixed, label=None):
    """The published loop in plain numbers: no class of the project but its noise and its kept timesteps."""
    kept = respaced.timesteps
    betas, last = [], 1.0
    abar_all = np.cumprod(1 - np.linspace(10 * 1e-4, 10 * 0.02, 100))
    for t in kept:
        betas.append(1 - abar_all[t] / last)
        last = abar_all[t]
    beta = np.array(betas)
    abar = np.cumprod(1 - beta)
    before = np.append(1.0, abar[:-1])
    true_variance = beta * (1 - before) / (1 - abar)
    T = len(kept)

    def run(x, i, clip):
        out = unet(x, torch.full((len(x),), int(kept[i])), class_labels=label).sample
        low, high = math.log(true_variance[max(i, 1)]), math.log(beta[i])
        if learns_variance:
            out, v = out.chunk(2, dim=1)
            share = (v + 1) / 2
            log_variance = share * high + (1 - share) * low
            variance = log_variance.exp()
        elif fixed == "large":
            value = beta[i] if i > 0 else true_variance[1]
            variance, log_variance = torch.tensor(value), torch.tensor(math.log(value))
        else:
            variance, log_variance = torch.tensor(true_variance[i]), torch.tensor(low)
        x0 = math.sqrt(1 / abar[i]) * x - math.sqrt(1 / abar[i] - 1) * out
        if clip:
            x0 = x0.clamp(-1, 1)
        first = beta[i] * math.sqrt(before[i]) / (1 - abar[i])
        second = (1 - before[i]) * math.sqrt(1 - beta[i]) / (1 - abar[i])
        return x0, first * x0 + second * x, variance, log_variance

    x = noise.start()
    for i in reversed(range(T)):
        with torch.no_grad():
            _, mean, variance, log_variance = run(x, i, True)
        if i > T * options["t_mid"] and i % options["inter_rate"] == 0:
            leaf = x.detach().requires_grad_(True)
            x0 = run(leaf, i, options["clip"])[0]
            s = int(T * options["p_ratio"])
            metrics = []
            for m in range(options["M"]):
                with torch.no_grad():
                    x_s = math.sqrt(abar[s]) * x0 + math.sqrt(1 - abar[s]) * noise.perturbation(i, m)
                    again = run(x_s, s, options["clip"])[0]
                metrics.append((x0 - again).reshape(len(x), -1).norm(p=options["p"], dim=1))
            (g,) = torch.autograd.grad(torch.stack(metrics, dim=1).mean(dim=1).sum(), leaf)
            if options["normed"]:
                peak = g.abs().amax(dim=(1, 2, 3), keepdim=True)
                # Published without a guard: where everything is clipped the gradient is 0 and the image NaN.
                g = g / torch.where(peak > 0, peak, 1)
            g = options["w"] * g
            mean = mean + (variance * g if options["type"] == "var" else g)
        x = mean + (0 if i == 0 else 1) * torch.exp(0.5 * log_variance) * noise.ancestral(i)
        x = x.float()
    return x


BASE = {"w": 2.0, "inter_rate": 3, "t_mid": -1.0, "p_ratio": 0.5, "M": 1, "type": "var", "normed": True, "clip": False}


@pytest.mark.parametrize(
    ("changes", "learns_variance", "fixed"),
    [
        ({}, True, "small"),
        ({}, False, "small"),
        ({}, False, "large"),
        ({"M": 3, "inter_rate": 1}, True, "small"),
        ({"clip": True}, True, "small"),
        ({"clip": True, "normed": False, "type": "fixed", "w": 0.05}, True, "small"),
        ({"normed": False, "p": 1.0, "w": 0.01}, True, "small"),
        ({"normed": False, "p": 3.0, "w": 1.0}, False, "large"),
        ({"t_mid": 0.5, "inter_rate": 1}, True, "small"),
        ({"t_mid": 0.6, "inter_rate": 2}, True, "small"),
        ({"t_mid": 0.0, "inter_rate": 2}, False, "small"),
        ({"type": "fixed", "w": 0.1, "p_ratio": 0.8}, False, "small"),
        ({"p_ratio": 0.0}, True, "small"),
    ],
)
@pytest.mark.parametrize("respacing", [10, "3,7"])
def test_every_option_means_what_it_means_in_the_published_loop(changes, learns_variance, fixed, respacing):
    options = BASE | {"p": 2.0} | changes
    respaced = TRAINED.respaced(respacing)
    unet = tiny_unet(learns_variance=learns_variance)
    noise = SampleNoise(0, range(3), shape=SHAPE)

    ours, _ = sample(
        UNetDenoiser(unet, TRAINED),
        respaced,
        noise,
        guidance=[guidance_of(options)],
        variance="learned_range" if learns_variance else f"fixed_{fixed}",
    )

    theirs = published(unet, noise, respaced=respaced, options=options, learns_variance=learns_variance, fixed=fixed)
    unguided, _ = sample(UNetDenoiser(unet, TRAINED), respaced, noise)
    # fp32 against fp32, ten steps.
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)
    assert not torch.allclose(ours, unguided, atol=1e-4)


def test_class_labels_reach_the_step_and_the_metric():
    options = BASE | {"p": 2.0}
    respaced = TRAINED.respaced(10)
    unet = tiny_unet(learns_variance=True, classes=4)
    noise, label = SampleNoise(0, range(3), shape=SHAPE), torch.tensor([0, 3, 1])

    denoiser = UNetDenoiser(unet, TRAINED, settings=UNetSettings(num_classes=4))
    ours, _ = sample(denoiser, respaced, noise, label=label, guidance=[guidance_of(options)])

    theirs = published(
        unet, noise, respaced=respaced, options=options, learns_variance=True, fixed="small", label=label
    )
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


def guidance_of(options):
    return SelfGuidance(
        scale=options["w"],
        interval=options["inter_rate"],
        perturbation=options["p_ratio"],
        above=options["t_mid"],
        draws=options["M"],
        norm=options["p"],
        scaling="variance" if options["type"] == "var" else "fixed",
        normalise=options["normed"],
        clip_x0=options["clip"],
    )
