"""A network that answers NaN or infinity makes no image: neither drawn, nor edited, nor enlarged, nor scored."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from minority.backbones import load_backbone
from minority.guidance.self_guidance import SelfGuidance
from minority.sampling.draw import SamplerSettings, ScoreSettings, draw_images, score_images
from minority.sampling.edit import edit_images
from minority.sampling.two_stage import UpsamplerSettings, join_stages

IMAGES = np.full((2, 8, 8, 1), 100, dtype=np.uint8)
QUICK = SamplerSettings(steps=4)


class Breaks(torch.nn.Module):
    """A sound denoiser up to a timestep, below which it answers something else."""

    def __init__(self, denoiser, *, below, value):
        super().__init__()
        self.denoiser, self.below, self.value = denoiser, below, value

    def forward(self, x_t, timestep, label=None):
        said = self.denoiser(x_t, timestep, label)
        return said._replace(eps=torch.full_like(said.eps, self.value)) if int(timestep[0]) < self.below else said


@pytest.fixture
def sound(make_tiny_backbone):
    return make_tiny_backbone()


@pytest.fixture(params=[float("nan"), float("inf"), float("-inf")])
def broken(sound, request):
    """Answers no number at its first call already."""
    return replace(sound, denoiser=Breaks(sound.denoiser, below=1001, value=request.param))


def draw(backbone, settings=QUICK):
    return draw_images(backbone, seed=0, indices=[0, 1], labels=[0, 1], settings=settings)


def edit(backbone):
    return edit_images(backbone, IMAGES, seed=0, indices=[0, 1], labels=[0, 1], settings=QUICK, fraction=0.5)


def score(backbone):
    return score_images(backbone, IMAGES, seed=0, indices=[0, 1], labels=[0, 1], settings=ScoreSettings(elbo_steps=2))


@pytest.mark.parametrize("use", [draw, edit, score])
def test_the_first_answer_is_looked_at(broken, use):
    with pytest.raises(
        ValueError, match=r"^backbone tiny in fp32: the network's first answer \(eps at step \d+\) is NaN"
    ):
        use(broken)


@pytest.mark.parametrize("use", [draw, edit])
def test_a_chain_that_breaks_on_its_way_makes_no_image(sound, use):
    late = replace(sound, denoiser=Breaks(sound.denoiser, below=400, value=float("nan")))

    with pytest.raises(ValueError, match=r"^backbone tiny in fp32: the end of a chain is NaN or infinite in 100\.00%"):
        use(late)


def test_one_broken_chain_of_a_batch_is_enough(sound):
    class One(Breaks):
        def forward(self, x_t, timestep, label=None):
            said = self.denoiser(x_t, timestep, label)
            if int(timestep[0]) < self.below:
                said.eps[1, 0, 2, 3] = float("nan")
            return said

    one = replace(sound, denoiser=One(sound.denoiser, below=400, value=0.0))

    with pytest.raises(ValueError, match="the end of a chain is NaN"):
        draw(one)


def test_an_overflow_in_fp16_names_the_precision_and_the_remedy(sound):
    with torch.no_grad():
        for name, parameter in sound.denoiser.named_parameters():
            if name.endswith("conv_in.weight"):
                parameter.mul_(1e5)
    assert np.isfinite(draw(sound)[0]).all()  # fp32 bears it

    with pytest.raises(
        ValueError, match=r"in fp16: the network's first answer .*; fp16 ends at 65504; set precision to"
    ):
        draw(sound, replace(QUICK, precision="fp16"))


def test_guidance_that_pushes_out_of_all_numbers_is_refused(sound):
    wild = SelfGuidance(scale=1e38, interval=1, jacobian=False)

    with pytest.raises(ValueError, match=r"NaN or infinite .*; its weights are broken, or guidance pushes too hard"):
        draw(replace(sound, bound=None), replace(QUICK, self_guidance=wild))


@pytest.mark.parametrize("stage", ["first", "second"])
def test_either_stage_of_two_is_looked_at(tiny_pipelines, tmp_path, stage):
    first_file, upsampler_file, flags = tiny_pipelines.adm_files(tmp_path)
    first = load_backbone(first_file, **flags["first"])
    upsampler = load_backbone(upsampler_file, **flags["upsampler"])
    network = (first if stage == "first" else upsampler).denoiser
    with torch.no_grad():
        list(network.parameters())[-1].fill_(float("inf"))
    both = join_stages(first, upsampler, settings=UpsamplerSettings(steps=2))

    with pytest.raises(ValueError, match=r"backbone first\+upsampler in fp32: the network's first answer"):
        draw_images(both, seed=0, indices=[0], labels=[3], settings=QUICK)


def test_an_autoencoder_that_answers_no_number_is_refused(tiny_pipelines, tmp_path):
    from diffusers import LDMPipeline

    pipeline = LDMPipeline(
        vqvae=tiny_pipelines.autoencoder(),
        unet=tiny_pipelines.unet(in_channels=4, out_channels=4),
        scheduler=tiny_pipelines.ddim(),
    )
    latent = load_backbone(tiny_pipelines.save(pipeline, tmp_path / "latent"))
    with torch.no_grad():
        latent.codec.autoencoder.decoder.conv_out.bias.fill_(float("nan"))

    with pytest.raises(ValueError, match=r"backbone latent in fp32: a finished image is NaN or infinite in 100\.00%"):
        draw_images(latent, seed=0, indices=[0], labels=None, settings=QUICK)


def test_a_sound_network_draws_as_before(sound):
    images, _ = draw(sound)

    assert images.shape == (2, 8, 8, 1)
