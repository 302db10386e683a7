"""Editing and inpainting by text against diffusers' own pipelines, on tiny random ones."""

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Img2ImgPipeline, StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline

from minority.backbones.text.folder import TextToImage, load_text_to_image
from minority.backbones.text.prompts import Prompts
from minority.diffusion.pixels import from_pixels
from minority.guidance.classifier_free import ClassifierFree
from minority.sampling.edit import StartFromImages, edit_images
from minority.sampling.inpainting import KeepOutsideMask, masks_of_states
from minority.sampling.sampler import sample
from minority.sampling.settings import SamplerSettings
from minority.solvers.ddim import Ddim
from tests.known_noise import Start

PROMPTS = ("a photo of a dog", "a cat in the white coat")
NEGATIVE = "old red coat"
STEPS = 10


@pytest.fixture(scope="module")
def open_pipeline(tiny_text_pipelines, tmp_path_factory):
    made = {}

    def open_family(name):
        if name not in made:
            pipeline = getattr(tiny_text_pipelines, name)()
            folder = tiny_text_pipelines.save(pipeline, tmp_path_factory.mktemp("pipelines") / name)
            prompts = Prompts(texts=tuple((text,) for text in PROMPTS), negative=NEGATIVE)
            made[name] = pipeline, load_text_to_image(folder, TextToImage(prompts=prompts))
        return made[name]

    return open_family


def noise_of(seed, like):
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))


def edited(backbone, states, noise, *, steps, first, scale, redrawn=None):
    kept = [] if redrawn is None else [KeepOutsideMask(states=states, redrawn=redrawn)]
    guidance = [] if scale == 1 else [ClassifierFree(scale=scale)]
    schedule = backbone.schedule.respaced(steps)
    start = StartFromImages(images=states, fraction=(first + 0.5) / schedule.num_steps)
    return sample(
        backbone.denoiser,
        schedule,
        Start(noise),
        label=torch.tensor([0, 1]),
        guidance=[*guidance, start, *kept],
        solver=Ddim(),
        space=backbone.space,
    )[0]


def drawn_by(pipeline_class, pipeline, *, scale, seed, strength, **inputs):
    theirs = pipeline_class.from_pipe(pipeline)
    theirs.set_progress_bar_config(disable=True)
    with torch.no_grad():
        return theirs(
            list(PROMPTS),
            negative_prompt=[NEGATIVE] * 2,
            num_inference_steps=STEPS,
            guidance_scale=scale,
            strength=strength,
            generator=torch.Generator().manual_seed(seed),
            output_type="latent",
            **inputs,
        ).images


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("strength", [0.3, 0.7])
@pytest.mark.parametrize(
    ("family", "pipeline_class", "steps"),
    [
        ("stable_diffusion", StableDiffusionImg2ImgPipeline, f"leading{STEPS}"),
        ("sd3", StableDiffusion3Img2ImgPipeline, STEPS),
    ],
)
def test_an_edit_is_that_of_diffusers_image_to_image_pipeline(
    open_pipeline, family, pipeline_class, steps, strength, scale
):
    pipeline, backbone = open_pipeline(family)
    states = torch.randn(2, *backbone.state_shape, generator=torch.Generator().manual_seed(1))
    sides = {} if family == "stable_diffusion" else {"height": 32, "width": 32}

    expected = drawn_by(pipeline_class, pipeline, scale=scale, seed=2, strength=strength, image=states, **sides)
    found = edited(backbone, states, noise_of(2, states), steps=steps, first=round(STEPS * strength) - 1, scale=scale)

    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert (found - states).abs().max() > 0.1


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("strength", [0.5, 0.9])
def test_inpainting_is_that_of_diffusers_pipeline_for_plain_networks(open_pipeline, strength, scale):
    pipeline, backbone = open_pipeline("stable_diffusion")
    rng = np.random.default_rng(0)
    side = backbone.image_shape[1]
    images = rng.integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    masks = rng.random((2, side, side)) > 0.5
    with torch.no_grad():
        states = backbone.encode(from_pixels(images))
    redrawn = masks_of_states(masks, backbone.state_shape)

    expected = drawn_by(
        StableDiffusionInpaintPipeline,
        pipeline,
        scale=scale,
        seed=2,
        strength=strength,
        image=states,
        masked_image_latents=states,
        mask_image=torch.from_numpy(masks).unsqueeze(1).float(),
        height=side,
        width=side,
    )
    found = edited(
        backbone,
        states,
        noise_of(2, states),
        steps=f"leading{STEPS}",
        first=round(STEPS * strength) - 1,
        scale=scale,
        redrawn=redrawn,
    )

    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    outside = ~redrawn.expand_as(found)
    assert torch.equal(found[outside], states[outside])
    assert (found - states)[~outside].abs().max() > 0.1


@pytest.mark.parametrize("family", ["stable_diffusion", "sd3"])
def test_what_a_mask_keeps_is_what_the_autoencoder_makes_of_it(open_pipeline, family):
    _, backbone = open_pipeline(family)
    side = backbone.image_shape[1]
    images = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    nothing = np.zeros((1, side, side), dtype=bool)
    settings = SamplerSettings(steps=4, solver="ddim")

    def edit(masks):
        return edit_images(
            backbone, images, seed=0, indices=[7], labels=[1], settings=settings, fraction=0.9, masks=masks
        )[0]

    with torch.no_grad():
        again = backbone.finish(backbone.encode(from_pixels(images)), seed=0, indices=[7], label=None)[0]
    assert (from_pixels(edit(nothing)) - again.clamp(-1, 1)).abs().max() <= 1 / 255
    assert np.array_equal(edit(~nothing), edit(None))
    assert not np.array_equal(edit(nothing), edit(None))
