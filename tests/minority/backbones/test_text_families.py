"""Text-to-image backbones against diffusers' own pipelines, family by family, on tiny random ones."""

import inspect
import logging

import pytest
import torch

from minority.backbones.text.folder import TextToImage, load_text_to_image
from minority.backbones.text.prompts import Prompts
from minority.engine.prepare import EngineSettings, prepared
from minority.guidance.classifier_free import ClassifierFree
from minority.sampling.sampler import sample
from minority.solvers.ddim import Ddim
from minority.solvers.renoise import Renoise
from tests.known_noise import Start

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own
PROMPTS = ("a photo of a dog", "a cat in the white coat")
NEGATIVE = "old red coat"
#: By name: the builder and its arguments, the guidance argument of the pipeline, and the steps' spacing.
FAMILIES = {
    "sd": ("stable_diffusion", {}, "guidance_scale", "leading"),
    "sd-v": ("stable_diffusion", {"prediction_type": "v_prediction"}, "guidance_scale", "leading"),
    "sdxl": ("sdxl", {}, "guidance_scale", "leading"),
    "sdxl-trailing": ("sdxl", {"spacing": "trailing"}, "guidance_scale", "trailing"),
    "sd3": ("sd3", {}, "guidance_scale", ""),
    "sd3-without-t5": ("sd3", {"with_t5": False}, "guidance_scale", ""),
    "sd3-dynamic": ("sd3", {"use_dynamic_shifting": True}, "guidance_scale", ""),
    "flux-dev": ("flux", {}, "true_cfg_scale", ""),
    "flux-schnell": ("flux", {"guidance_embeds": False}, "true_cfg_scale", ""),
    "pixart-alpha": ("pixart", {}, "guidance_scale", "leading"),
    "pixart-sizes": ("pixart", {"use_additional_conditions": True, "sample_size": 128}, "guidance_scale", "leading"),
    "pixart-sigma": ("pixart", {"sigma": True}, "guidance_scale", "leading"),
    "sana": ("sana", {}, "guidance_scale", ""),
    "lumina2": ("lumina2", {}, "guidance_scale", ""),
}
SIZES = {"flux-dev": 32, "flux-schnell": 32, "pixart-sizes": 32}


@pytest.fixture(scope="module")
def opened(tiny_text_pipelines, tmp_path_factory):
    made = {}

    def open_family(name):
        if name not in made:
            builder, arguments, _, _ = FAMILIES[name]
            pipeline = getattr(tiny_text_pipelines, builder)(**arguments)
            pipeline.set_progress_bar_config(disable=True)
            folder = tiny_text_pipelines.save(pipeline, tmp_path_factory.mktemp("pipelines") / name)
            prompts = Prompts(texts=tuple((text,) for text in PROMPTS), negative=NEGATIVE)
            made[name] = pipeline, load_text_to_image(folder, TextToImage(prompts=prompts, size=SIZES.get(name)))
        return made[name]

    return open_family


def start_of(backbone, batch=2):
    return torch.randn(batch, *backbone.state_shape, generator=torch.Generator().manual_seed(0))


def drawn_by_diffusers(pipeline, name, x, steps, scale, **more):
    _, _, guidance, spacing = FAMILIES[name]
    arguments = {"negative_prompt": [NEGATIVE] * len(x), guidance: scale}
    known = inspect.signature(pipeline.__call__).parameters
    arguments |= {"use_resolution_binning": False} if "use_resolution_binning" in known else {}
    arguments |= {"clean_caption": False} if "clean_caption" in known else {}
    arguments |= {"cfg_normalization": False} if "cfg_normalization" in known else {}
    arguments |= more
    if scale == 1 and guidance == "true_cfg_scale":
        del arguments["negative_prompt"]
    side = x.shape[-1] * 2
    latents = x
    if spacing == "trailing":  # diffusers starts Euler's chain from sigma alone, ours from unit variance
        pipeline.scheduler.set_timesteps(steps)
        sigma = pipeline.scheduler.sigmas[0]
        latents = x * (sigma**2 + 1) ** 0.5 / pipeline.scheduler.init_noise_sigma
    if name.startswith("flux"):
        latents = pipeline._pack_latents(latents, len(x), x.shape[1], x.shape[2], x.shape[3])
    with torch.no_grad():
        result = pipeline(
            list(PROMPTS[: len(x)]),
            num_inference_steps=steps,
            latents=latents,
            output_type="latent",
            return_dict=False,
            height=side,
            width=side,
            **arguments,
        )[0]
    return pipeline._unpack_latents(result, side, side, 2) if name.startswith("flux") else result


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("steps", [7, 10])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_draws_what_diffusers_draws(opened, name, steps, scale):
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    pipeline, backbone = opened(name)
    x = start_of(backbone)
    expected = drawn_by_diffusers(pipeline, name, x, steps, scale)

    found, cost = sample(
        backbone.denoiser,
        backbone.schedule.respaced(f"{FAMILIES[name][3]}{steps}"),
        Start(x),
        label=torch.arange(len(x)),
        guidance=[] if scale == 1 else [ClassifierFree(scale=scale)],
        solver=Ddim(),
        space=backbone.space,
    )

    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert cost.evaluations() == steps * (1 if scale == 1 else 2)
    assert x.std() > 0.5
    assert (found - x).abs().max() > 0.1


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("share", [1.0, 0.55, 0.3, 0.0])
@pytest.mark.parametrize("steps", [7, 10])
def test_guidance_of_kept_length_and_of_early_steps_is_that_of_lumina(opened, steps, share, normalized):
    pipeline, backbone = opened("lumina2")
    x = start_of(backbone)
    told = {"cfg_normalization": normalized, "cfg_trunc_ratio": share}
    expected = drawn_by_diffusers(pipeline, "lumina2", x, steps, 4.0, **told)

    found, cost = sample(
        backbone.denoiser,
        backbone.schedule.respaced(steps),
        Start(x),
        label=torch.arange(len(x)),
        guidance=[ClassifierFree(scale=4.0, normalized=normalized, share=share)],
        solver=Ddim(),
        space=backbone.space,
    )

    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert cost.evaluations() == steps + int(steps * share)
    plain = drawn_by_diffusers(pipeline, "lumina2", x, steps, 4.0)
    assert ((found - plain).abs().max() > 1e-3) == ((normalized and share > 0) or share < 1)


def test_lengths_are_kept_of_flows_alone(opened):
    assert ClassifierFree(normalized=True).refusal(opened("sd3")[1]) is None
    assert "is no flow" in ClassifierFree(normalized=True).refusal(opened("sd")[1])


@pytest.mark.parametrize("name", FAMILIES)
def test_the_prompt_and_the_negative_prompt_matter_and_a_sample_does_not_depend_on_its_batch(opened, name):
    _, backbone = opened(name)
    x = start_of(backbone)
    told = backbone.schedule.timestep(backbone.schedule.num_steps // 2, 2)

    with torch.no_grad():
        both = backbone.denoiser(x, told, torch.tensor([0, 1])).eps
        other = backbone.denoiser(x, told, torch.tensor([1, 1])).eps
        free = backbone.denoiser(x, told, None).eps
        alone = backbone.denoiser(x[1:], told[1:], torch.tensor([1])).eps

    assert (both[0] - other[0]).abs().max() > 1e-6
    assert (both[1] - free[1]).abs().max() > 1e-6
    assert (both[1:] - alone).abs().max() <= 1e-5


@pytest.mark.parametrize("name", ["sd", "sd3", "sana"])
def test_images_come_back_from_their_latents_as_the_pipeline_decodes_them(opened, name):
    pipeline, backbone = opened(name)
    x = start_of(backbone)
    config = pipeline.vae.config

    with torch.no_grad():
        images, _ = backbone.finish(x, seed=0, indices=[0, 1], label=None)
        expected = pipeline.vae.decode(x / config.scaling_factor + (config.get("shift_factor") or 0)).sample
        again = backbone.encode(images)

    assert (images - expected).abs().max() <= 1e-5
    assert images.shape[1:] == backbone.image_shape
    assert again.shape == x.shape


@pytest.mark.parametrize("name", ["sdxl", "flux-dev", "pixart-sizes", "sd3"])
def test_engine_and_precision_reach_the_network_alone(opened, name):
    _, backbone = opened(name)
    x = start_of(backbone)
    told, rows = backbone.schedule.timestep(500, 2), torch.tensor([0, 1])

    def gradient(denoiser):
        state = x.clone().requires_grad_(True)
        prediction = denoiser(state, told, rows)
        clean = prediction.eps if prediction.x0_hat is None else prediction.x0_hat
        return torch.autograd.grad(clean.square().sum(), state)[0]

    checkpointed = prepared(backbone, engine=EngineSettings(checkpoint=True)).denoiser
    padded = prepared(backbone, engine=EngineSettings(cuda_graphs=True)).denoiser
    half = prepared(backbone, precision="bf16").denoiser

    expected = gradient(backbone.denoiser)
    assert (gradient(checkpointed) - expected).abs().max() <= 1e-4 * expected.abs().max()
    with torch.no_grad():
        eps = padded(x, told, rows).eps
        alone = padded(x[:1], told[:1], rows[:1]).eps
        rough = half(x, told, rows).eps
    assert (eps - backbone.denoiser(x, told, rows).eps).abs().max() <= 1e-5
    assert (alone - eps[:1]).abs().max() <= 1e-5
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    # FLUX.1 rounds its time to bf16, as in its own pipeline.
    assert 0 < (rough - eps).square().mean() < 0.1 * eps.square().mean()
    assert {parameter.dtype for parameter in backbone.denoiser.parameters()} == {torch.float32}


@pytest.mark.parametrize("steps", [1, 4])
def test_lcm_draws_what_diffusers_draws(tiny_text_pipelines, tmp_path, monkeypatch, steps):
    from diffusers import LatentConsistencyModelPipeline, LCMScheduler, UNet2DConditionModel
    from diffusers.schedulers import scheduling_lcm

    plain = tiny_text_pipelines.stable_diffusion()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DConditionModel.from_config(plain.unet.config, time_cond_proj_dim=32).eval()
    parts = {"vae": plain.vae, "text_encoder": plain.text_encoder, "tokenizer": plain.tokenizer, "unet": unet}
    scheduler = LCMScheduler.from_config(plain.scheduler.config)
    pipeline = LatentConsistencyModelPipeline(
        **parts, scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    folder = tiny_text_pipelines.save(pipeline, tmp_path / "lcm")
    prompts = Prompts(texts=tuple((text,) for text in PROMPTS))
    backbone = load_text_to_image(folder, TextToImage(prompts=prompts, guidance=6.0))
    x = start_of(backbone)
    drawn = [torch.randn(x.shape, generator=torch.Generator().manual_seed(1 + i)) for i in range(steps)]
    again = iter(drawn)
    monkeypatch.setattr(scheduling_lcm, "randn_tensor", lambda *_, **__: next(again))
    with torch.no_grad():
        expected = pipeline(
            list(PROMPTS),
            num_inference_steps=steps,
            guidance_scale=6.0,
            latents=x,
            output_type="latent",
            height=32,
            width=32,
        ).images

    class Noise(Start):
        def ancestral(self, step):
            return drawn[steps - 1 - step]

    found, _ = sample(
        backbone.denoiser,
        backbone.schedule.respaced(f"lcm{steps}"),
        Noise(x),
        label=torch.tensor([0, 1]),
        solver=Renoise(),
        space=backbone.space,
    )

    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5
    assert "told a guidance scale" in backbone.distilled or "LCMScheduler" in backbone.distilled
