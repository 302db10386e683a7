"""Converted U-Nets against the plain definition of an ADM U-Net, computed straight from the checkpoint's tensors."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks.published_loop import PublishedGuidance, PublishedLoop
from minority.backbones import AdmFlags, UNetDenoiser, UNetSettings, convert
from minority.backbones.adm import layout_of
from minority.backbones.adm_layout import expected_shapes
from minority.diffusion.noise import SampleNoise
from minority.diffusion.schedule import NoiseSchedule
from minority.guidance.self_guidance import SelfGuidance
from minority.sampling.sampler import sample

SMALL = AdmFlags(
    image_size=16,
    noise_schedule="cosine",
    use_new_attention_order=True,
    num_head_channels=16,
    num_channels=32,
    channel_mult=(1, 2, 3),
    num_res_blocks=1,
    attention_resolutions=(8, 4),
    class_cond=False,
    use_scale_shift_norm=True,
    resblock_updown=True,
    learn_sigma=True,
    low_resolution=False,
    image_channels=3,
)
FOUR_HEADS = {"num_head_channels": None, "num_heads": 4}
VARIANTS = {
    "new attention order": {},
    "legacy attention order": {"use_new_attention_order": False},
    "plain convolutions resample": {"resblock_updown": False},
    "time embedding is added": {"use_scale_shift_norm": False},
    "plain, added, legacy, four heads": {
        "resblock_updown": False,
        "use_scale_shift_norm": False,
        "use_new_attention_order": False,
        **FOUR_HEADS,
    },
    "labels and fixed variance": {"class_cond": True, "learn_sigma": False},
    "upsampler, four heads at every width": {
        "use_new_attention_order": False,
        "class_cond": True,
        "low_resolution": True,
        **FOUR_HEADS,
    },
    "two residual blocks, attention at one size": {"num_res_blocks": 2, "attention_resolutions": (8,)},
}


class AdmUNet:
    """The published architecture, walked block by block as the tensors' names say; no modules, no shared code."""

    def __init__(self, tensors, flags):
        self.w, self.flags = tensors, flags

    def __call__(self, x, timestep, label):
        half = self.flags.num_channels // 2
        angles = timestep[:, None].float() * torch.exp(-math.log(10000) * torch.arange(half) / half)
        emb = self.linear("time_embed.0", torch.cat([angles.cos(), angles.sin()], dim=1).to(x.dtype))
        emb = self.linear("time_embed.2", F.silu(emb))
        if label is not None:
            emb = emb + self.w["label_emb.weight"][label]
        skips = []
        for i in self.numbers("input_blocks"):
            x = self.block(f"input_blocks.{i}", x, emb, shrinks=i > 0 and i % (self.flags.num_res_blocks + 1) == 0)
            skips.append(x)
        x = self.block("middle_block", x, emb)
        for i in self.numbers("output_blocks"):
            x = self.block(f"output_blocks.{i}", torch.cat([x, skips.pop()], dim=1), emb)
        return self.conv("out.2", F.silu(self.norm("out.0", x)))

    def block(self, name, x, emb, shrinks=False):
        for part in self.numbers(name):
            part_name = f"{name}.{part}"
            if f"{part_name}.op.weight" in self.w:
                x = self.conv(f"{part_name}.op", x, stride=2)
            elif f"{part_name}.conv.weight" in self.w:
                x = self.conv(f"{part_name}.conv", F.interpolate(x, scale_factor=2))
            elif f"{part_name}.qkv.weight" in self.w:
                x = self.attention(part_name, x)
            elif f"{part_name}.in_layers.0.weight" in self.w:
                grows = name.startswith("output") and part > 0
                x = self.residual(part_name, x, emb, shrinks=shrinks, grows=grows)
            else:
                x = self.conv(part_name, x)
        return x

    def residual(self, name, x, emb, shrinks, grows):
        h = F.silu(self.norm(f"{name}.in_layers.0", x))
        if shrinks:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        if grows:
            h, x = F.interpolate(h, scale_factor=2), F.interpolate(x, scale_factor=2)
        h = self.conv(f"{name}.in_layers.2", h)
        time = self.linear(f"{name}.emb_layers.1", F.silu(emb))[:, :, None, None]
        if self.flags.use_scale_shift_norm:
            scale, shift = time.chunk(2, dim=1)
            h = self.norm(f"{name}.out_layers.0", h) * (1 + scale) + shift
        else:
            h = self.norm(f"{name}.out_layers.0", h + time)
        h = self.conv(f"{name}.out_layers.3", F.silu(h))
        if f"{name}.skip_connection.weight" in self.w:
            x = self.conv(f"{name}.skip_connection", x)
        return x + h

    def attention(self, name, x):
        flat = x.flatten(2)  # (B, C, N)
        batch, width, pixels = flat.shape
        heads = self.flags.num_heads or width // self.flags.num_head_channels
        joint = F.conv1d(self.norm(f"{name}.norm", flat), self.w[f"{name}.qkv.weight"], self.w[f"{name}.qkv.bias"])
        if self.flags.use_new_attention_order:
            q, k, v = joint.reshape(batch, 3, heads, -1, pixels).unbind(1)
        else:
            q, k, v = joint.reshape(batch, heads, 3, -1, pixels).unbind(2)
        weights = torch.softmax(torch.einsum("bhcn,bhcm->bhnm", q, k) / math.sqrt(width // heads), dim=-1)
        mixed = torch.einsum("bhnm,bhcm->bhcn", weights, v).reshape(batch, width, pixels)
        out = F.conv1d(mixed, self.w[f"{name}.proj_out.weight"], self.w[f"{name}.proj_out.bias"])
        return (flat + out).reshape(x.shape)

    def numbers(self, name):
        start = name + "."
        return sorted({int(key[len(start) :].split(".")[0]) for key in self.w if key.startswith(start)})

    def norm(self, name, x):
        return F.group_norm(x, 32, self.w[f"{name}.weight"], self.w[f"{name}.bias"], eps=1e-5)

    def conv(self, name, x, stride=1):
        weight = self.w[f"{name}.weight"]
        return F.conv2d(x, weight, self.w[f"{name}.bias"], stride=stride, padding=weight.shape[-1] // 2)

    def linear(self, name, x):
        return F.linear(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"])


def random_checkpoint(flags, classes=10):
    """Tensors of the right shapes, with no zero among them that could hide a mistake."""
    generator = torch.Generator().manual_seed(0)
    shapes = expected_shapes(layout_of(flags, {"label_emb.weight": (classes, 0)}))

    def draw(name, shape):
        noise = torch.randn(shape, generator=generator)
        if len(shape) == 1:
            return 0.2 * noise + (1.0 if name.endswith("weight") else 0.0)
        return noise / math.sqrt(math.prod(shape[1:]))

    return {name: draw(name, shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_output_and_input_gradient_equal_the_plain_definition(changes):
    torch.set_num_threads(1)
    flags = replace(SMALL, **changes)
    tensors = random_checkpoint(flags)
    unet = convert(tensors, flags)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, unet.config.in_channels, 16, 16, generator=generator).requires_grad_()
    timestep, label = torch.tensor([3, 871]), torch.tensor([9, 4]) if flags.class_cond else None

    ours = unet(x, timestep, class_labels=label).sample
    plain = AdmUNet(tensors, flags)(x, timestep, label)
    direction = torch.randn(plain.shape, generator=generator)
    our_gradient, plain_gradient = (torch.autograd.grad((out * direction).sum(), x)[0] for out in (ours, plain))

    # Rounding in fp32; a wrong epsilon of the normalisation or a wrong head would be far above it.
    assert plain.std() > 0.1
    assert (ours - plain).abs().max() <= 2e-5
    assert (our_gradient - plain_gradient).abs().max() <= 2e-5


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_the_tensors_tell_the_architecture_without_flags(changes):
    flags = replace(SMALL, **changes)
    shapes = {name: tuple(tensor.shape) for name, tensor in random_checkpoint(flags).items()}
    silent = AdmFlags(
        image_size=16,
        noise_schedule="cosine",
        use_new_attention_order=True,
        num_head_channels=16,
    )

    assert layout_of(silent, shapes) == layout_of(flags, shapes)


@torch.no_grad()
def test_the_upsampler_sees_its_low_resolution_image_bilinearly_enlarged():
    torch.set_num_threads(1)
    flags = replace(SMALL, **VARIANTS["upsampler, four heads at every width"])
    tensors = random_checkpoint(flags)
    settings = UNetSettings(num_classes=10, low_resolution=True, attention_heads=4)
    denoiser = UNetDenoiser(convert(tensors, flags), NoiseSchedule.linear(1000), settings=settings)
    x_t, small = torch.randn(2, 3, 16, 16), torch.rand(2, 3, 4, 4) * 2 - 1
    timestep, label = torch.tensor([3, 871]), torch.tensor([9, 4])

    prediction = denoiser.conditioned_on(small)(x_t, timestep, label)

    # Bilinear, corners not aligned: pixel i of 16 lies at (i + 0.5) / 4 - 0.5 of 4, clamped to the border.
    place = ((torch.arange(16) + 0.5) / 4 - 0.5).clamp(0, 3)
    weights = (1 - (place[:, None] - torch.arange(4)).abs()).clamp(min=0)  # (16, 4)
    enlarged = torch.einsum("ih,bchw,jw->bcij", weights, small, weights)
    plain = AdmUNet(tensors, flags)(torch.cat([x_t, enlarged], dim=1), timestep, label)
    assert denoiser.state_shape == (3, 16, 16)
    assert (prediction.eps - plain[:, :3]).abs().max() <= 2e-5
    assert (prediction.variance_fraction - (plain[:, 3:] + 1) / 2).abs().max() <= 2e-5
    with pytest.raises(ValueError, match="conditioned_on"):
        denoiser(x_t, timestep, label)


#: Every option of the published loop away from its default at least once, spread over the architectures.
OPTIONS = [
    {"t_mid": 0.4, "inter_rate": 1, "norm_for_mg": 1.0},
    {"mg_clip_denoised": True, "use_normed_grad": False, "mg_scale_type": "fixed", "mg_scale": 0.02},
    {"num_mc_samples": 2},
]
REPLAYS = {name: (changes, OPTIONS[i % 3]) for i, (name, changes) in enumerate(VARIANTS.items())}


@pytest.mark.parametrize(("changes", "options"), REPLAYS.values(), ids=REPLAYS)
def test_a_guided_trajectory_is_that_of_the_published_loop(changes, options):
    torch.set_num_threads(1)
    flags = replace(SMALL, **changes)
    tensors, trained = random_checkpoint(flags), NoiseSchedule.linear(1000)
    published = PublishedGuidance(**{"mg_scale": 2.0, "inter_rate": 2, "p_ratio": 0.6} | options)
    small = torch.rand((2, 3, 4, 4), generator=torch.Generator().manual_seed(2)) * 2 - 1
    settings = UNetSettings(
        num_classes=10 if flags.class_cond else None,
        low_resolution=bool(flags.low_resolution),
        attention_heads=flags.num_heads,
    )
    # Networks in float64: in fp32 the last bits of their outputs would grow by 1/sqrt(abar) = 158 at the noisy end.
    unet = convert(tensors, flags).to(torch.float64).requires_grad_(False)
    denoiser = UNetDenoiser(unet, trained, settings=settings)
    kept, noise = trained.respaced(5), SampleNoise(0, range(2), shape=(3, 16, 16))
    label = torch.tensor([9, 4]) if flags.class_cond else None

    ours, _ = sample(
        denoiser.conditioned_on(small) if flags.low_resolution else denoiser,
        kept,
        noise,
        label=label,
        guidance=[self_guidance(published)],
    )

    plain = AdmUNet({name: tensor.double() for name, tensor in tensors.items()}, flags)
    behind = [F.interpolate(small, size=(16, 16), mode="bilinear")] if flags.low_resolution else []
    theirs = PublishedLoop(
        lambda x, t, y: plain(torch.cat([x, *behind], dim=1).double(), t, y),
        trained_betas=np.linspace(1e-4, 0.02, 1000),
        timesteps=kept.timesteps,
        guidance=published,
    ).draw(noise, label=label)
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


def self_guidance(published):
    return SelfGuidance(
        scale=published.mg_scale,
        interval=published.inter_rate,
        perturbation=published.p_ratio,
        above=published.t_mid,
        draws=published.num_mc_samples,
        norm=published.norm_for_mg,
        scaling={"var": "variance", "fixed": "fixed"}[published.mg_scale_type],
        normalise=published.use_normed_grad,
        clip_x0=published.mg_clip_denoised,
    )
