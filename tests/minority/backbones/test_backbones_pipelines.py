"""Diffusers pipelines as backbones: what diffusers itself draws and decodes is the oracle."""

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from diffusers import DDIMPipeline, DDPMPipeline, DiTPipeline, EDMEulerScheduler, LDMPipeline, ScoreSdeVePipeline
from diffusers.schedulers import ScoreSdeVeScheduler
from diffusers.schedulers.deprecated.scheduling_sde_vp import ScoreSdeVpScheduler

from minority.backbones import BackboneError, load_backbone
from minority.diffusion.chain import Chain
from minority.sampling.sampler import sample
from minority.solvers.ddim import Ddim

# fp32 rounding along ten steps of networks of order one; a wrong schedule, scale or label would be far above it.
CLOSE = {"rtol": 0, "atol": 1e-5}


class Recorded:
    """Noise that is known beforehand."""

    def __init__(self, x_t):
        self.x_t = x_t

    def start(self):
        return self.x_t


def ours(backbone, *, labels=None, steps="ddim10", seed=5, batch=2):
    """Images (B, H, W, C) in [0, 1] drawn by our DDIM, and the generator's noise that diffusers starts from too."""
    x_t = torch.randn((batch, *backbone.state_shape), generator=torch.Generator().manual_seed(seed))
    label = None if labels is None else torch.tensor(labels)
    schedule = backbone.schedule.respaced(steps)
    with torch.no_grad():
        states, _ = sample(backbone.denoiser, schedule, Recorded(x_t), label=label, solver=Ddim(), space=backbone.space)
        images, _ = backbone.finish(states, seed=0, indices=range(batch), label=label)
    return (images / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)


def theirs(pipeline_class, folder, **call):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = pipeline_class.from_pretrained(folder)
        pipeline.set_progress_bar_config(disable=True)
        call = {"generator": torch.Generator().manual_seed(5), "num_inference_steps": 10, "output_type": "np"} | call
        images = torch.from_numpy(np.asarray(pipeline(**call).images))
    assert (images[0] - images[1]).abs().max() > 0.05, "what cannot tell two samples apart is no oracle"
    return images


@pytest.mark.parametrize(
    "scheduler",
    [
        {"clip_sample": True},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "prediction_type": "v_prediction"},
        {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample"},
        {"clip_sample": True, "clip_sample_range": 0.5, "prediction_type": "sample"},
        {"trained_betas": [0.001 * i for i in range(1, 41)]},
    ],
    ids=["linear, clipped", "scaled linear, v", "cosine, clean image", "another range", "betas of its own"],
)
def test_our_ddim_draws_what_diffusers_ddim_pipeline_draws(tiny_pipelines, tmp_path, scheduler):
    pipeline = DDIMPipeline(tiny_pipelines.unet(), tiny_pipelines.ddim(**scheduler))
    folder = tiny_pipelines.save(pipeline, tmp_path / "pixels")
    if "trained_betas" in scheduler:
        edit(folder / "scheduler" / "scheduler_config.json", num_train_timesteps=40)

    backbone = load_backbone(folder)

    expected = theirs(DDIMPipeline, folder, batch_size=2, eta=0.0, use_clipped_model_output=True)
    torch.testing.assert_close(ours(backbone), expected, **CLOSE)
    assert backbone.image_shape == backbone.state_shape == (3, 8, 8)


def test_our_ddim_draws_what_diffusers_dit_pipeline_draws(tiny_pipelines, tmp_path):
    folder = tiny_pipelines.save(tiny_pipelines.dit_pipeline(), tmp_path / "dit")

    backbone = load_backbone(folder)

    assert (backbone.image_shape, backbone.state_shape, backbone.num_classes) == ((3, 8, 8), (4, 4, 4), 4)
    assert backbone.denoiser.no_label == 4
    expected = theirs(DiTPipeline, folder, class_labels=[1, 3], guidance_scale=1.0)
    torch.testing.assert_close(ours(backbone, labels=[1, 3]), expected, **CLOSE)
    assert not torch.allclose(ours(backbone, labels=[0, 2]), expected, **CLOSE)


def test_published_dit_checkpoints_bear_an_older_class_name(tiny_pipelines, tmp_path):
    folder = tiny_pipelines.save(tiny_pipelines.dit_pipeline(), tmp_path / "dit")
    before = ours(load_backbone(folder), labels=[0, 1])

    edit(folder / "transformer" / "config.json", _class_name="Transformer2DModel")

    assert torch.equal(ours(load_backbone(folder), labels=[0, 1]), before)


def test_a_dit_learns_its_variance(tiny_pipelines, tmp_path):
    backbone = load_backbone(tiny_pipelines.save(tiny_pipelines.dit_pipeline(), tmp_path / "dit"))

    with torch.no_grad():
        prediction = backbone.denoiser(torch.randn(2, 4, 4, 4), torch.tensor([3, 900]), torch.tensor([0, 4]))

    assert prediction.eps.shape == prediction.variance_fraction.shape == (2, 4, 4, 4)


@pytest.mark.parametrize("kind", ["quantised", "continuous"])
def test_our_ddim_draws_what_diffusers_latent_pipeline_draws(tiny_pipelines, tmp_path, kind):
    autoencoder = tiny_pipelines.quantiser() if kind == "quantised" else tiny_pipelines.autoencoder(latent_channels=3)
    # Noise that leaves some signal at its end keeps latents of order one without clipping.
    pipeline = LDMPipeline(vqvae=autoencoder, unet=tiny_pipelines.unet(), scheduler=tiny_pipelines.ddim(beta_end=0.005))
    folder = tiny_pipelines.save(pipeline, tmp_path / "latent")

    backbone = load_backbone(folder)

    assert (backbone.image_shape, backbone.state_shape, backbone.bound) == ((3, 16, 16), (3, 8, 8), None)
    torch.testing.assert_close(ours(backbone), theirs(LDMPipeline, folder, batch_size=2), **CLOSE)


def test_latents_are_encoded_without_noise_on_the_scale_of_the_chain(tiny_pipelines, tmp_path):
    pipeline = LDMPipeline(
        vqvae=tiny_pipelines.autoencoder(latent_channels=3), unet=tiny_pipelines.unet(), scheduler=tiny_pipelines.ddim()
    )
    backbone = load_backbone(tiny_pipelines.save(pipeline, tmp_path / "latent"))
    images = torch.rand(2, 3, 16, 16) * 2 - 1

    with torch.no_grad():
        states = backbone.encode(images)
        expected = pipeline.vqvae.encode(images).latent_dist.mean * pipeline.vqvae.config.scaling_factor

    torch.testing.assert_close(states, expected)
    assert torch.equal(states, backbone.encode(images))


def test_a_score_network_steps_as_diffusers_variance_exploding_scheduler_does(tiny_pipelines, tmp_path):
    scheduler = ScoreSdeVeScheduler(num_train_timesteps=50, sigma_max=50.0)
    unet = tiny_pipelines.score_unet()
    folder = tiny_pipelines.save(ScoreSdeVePipeline(unet, scheduler), tmp_path / "ve")
    backbone = load_backbone(folder)
    scheduler.set_timesteps(50)
    scheduler.set_sigmas(50)
    noisy = 0.5 + scheduler.sigmas[0] * torch.randn(2, 3, 8, 8)  # an image in [0, 1] with the strongest noise

    with torch.no_grad():
        score = unet(noisy, scheduler.sigmas[0] * torch.ones(2)).sample
        theirs = scheduler.step_pred(score, scheduler.timesteps[0], noisy).prev_sample_mean
        chain = Chain(backbone.denoiser, backbone.schedule, space=backbone.space)
        estimate = chain.estimate(float(backbone.schedule.abar[49]) ** 0.5 * (2 * noisy - 1), 49)
        after = chain.posterior_mean(estimate, estimate.x0_hat) / float(backbone.schedule.abar[48]) ** 0.5

    # States are some 50 wide; the two space their levels alike to one part in a million.
    torch.testing.assert_close((after + 1) / 2, theirs, rtol=1e-5, atol=1e-3)


def test_a_variance_preserving_network_steps_as_diffusers_scheduler_does(tiny_pipelines, tmp_path):
    unet = tiny_pipelines.unet()
    scheduler = ScoreSdeVpScheduler(num_train_timesteps=2000)
    folder = tiny_pipelines.save(DDPMPipeline(unet, scheduler), tmp_path / "vp")
    backbone = load_backbone(folder)
    scheduler.set_timesteps(2000)
    x, step = torch.randn(2, 3, 8, 8), 1200
    time = scheduler.timesteps[2000 - 1 - step] * torch.ones(2)

    with torch.no_grad():
        network = unet(x, time * 1999).sample
        _, theirs = scheduler.step_pred(network, x, time)
        chain = Chain(backbone.denoiser, backbone.schedule, space=backbone.space)
        estimate = chain.estimate(x, step)

    torch.testing.assert_close(estimate.eps, network, rtol=1e-4, atol=1e-4)
    # Their step is of first order in 1/2000, ours exact: they differ by the square of it.
    torch.testing.assert_close(chain.posterior_mean(estimate, estimate.x0_hat) - x, theirs - x, rtol=0.02, atol=1e-4)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("sigma_schedule", ["karras", "exponential"])
def test_an_edm_network_steps_as_diffusers_euler_scheduler_does(
    tiny_pipelines, tmp_path, prediction_type, sigma_schedule
):
    scheduler = EDMEulerScheduler(
        num_train_timesteps=10, sigma_max=5.0, prediction_type=prediction_type, sigma_schedule=sigma_schedule
    )
    unet = tiny_pipelines.unet()
    backbone = load_backbone(tiny_pipelines.save(DDPMPipeline(unet, scheduler), tmp_path / "edm"))
    x_t = torch.randn((2, 3, 8, 8), generator=torch.Generator().manual_seed(5))

    scheduler.set_timesteps(10)
    x = x_t * scheduler.init_noise_sigma
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(unet(scheduler.scale_model_input(x, t), t).sample, t, x).prev_sample

    torch.testing.assert_close(
        ours(backbone, steps=10), (x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1), rtol=0, atol=1e-4
    )


def test_settings_beside_the_weights_change_the_identity_but_not_the_checksum(tiny_pipelines, tmp_path):
    folder = tiny_pipelines.save(DDIMPipeline(tiny_pipelines.unet(), tiny_pipelines.ddim()), tmp_path / "a")
    shutil.copytree(folder, tmp_path / "b")
    edit(tmp_path / "b" / "scheduler" / "scheduler_config.json", beta_end=0.03)
    shutil.copytree(folder, tmp_path / "c")
    edit(tmp_path / "c" / "unet" / "config.json", _diffusers_version="0.1.0")

    a, b, c = (load_backbone(tmp_path / name) for name in "abc")

    assert a.sha256 == b.sha256 == c.sha256
    assert a.identity == c.identity != b.identity


def test_the_checksum_of_a_latent_pipeline_covers_its_autoencoder(tiny_pipelines, tmp_path):
    folder = tiny_pipelines.save(tiny_pipelines.dit_pipeline(), tmp_path / "dit")
    before = load_backbone(folder).sha256
    other = tiny_pipelines.autoencoder()
    with torch.no_grad():
        other.decoder.conv_out.bias.add_(0.1)

    other.save_pretrained(folder / "vae")

    assert load_backbone(folder).sha256 != before


def test_sharded_weights_are_read(tiny_pipelines, tmp_path):
    folder = tiny_pipelines.save(DDIMPipeline(tiny_pipelines.unet(), tiny_pipelines.ddim()), tmp_path / "model")
    before = ours(load_backbone(folder))
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    tiny_pipelines.unet().save_pretrained(folder / "unet", max_shard_size="20KB")

    assert len(list((folder / "unet").glob("*.safetensors"))) > 1
    assert torch.equal(ours(load_backbone(folder)), before)


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


SCHEDULER, VAE, INDEX = "scheduler/scheduler_config.json", "vae/config.json", "model_index.json"


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        (SCHEDULER, {"_class_name": "FlowMatchEulerDiscreteScheduler"}, "is of a FlowMatchEulerDiscreteScheduler"),
        (SCHEDULER, {"_class_name": "CMStochasticIterativeScheduler"}, "tells no noise levels that are known here"),
        (SCHEDULER, {"_class_name": "EDMEulerScheduler"}, "a DiT of the edm family is not supported"),
        (SCHEDULER, {"thresholding": True}, "asks for thresholding, which is not supported; set it to false"),
        (
            VAE,
            {"_class_name": "AutoencoderTiny"},
            "is of a AutoencoderTiny; it must be AutoencoderKL, VQModel",
        ),
        (VAE, {"latent_channels": 3}, "does not fit the config.json beside it"),
        (
            "transformer/config.json",
            {"_class_name": "SD3Transformer2DModel"},
            "(of a DiTPipeline)",
        ),
        ("transformer/config.json", {"num_embeds_ada_norm": 3}, "of another shape: transformer_blocks.0.norm1.emb"),
    ],
)
def test_what_is_no_backbone_is_refused_in_one_line(tiny_pipelines, tmp_path, file, changes, words):
    folder = tiny_pipelines.save(tiny_pipelines.dit_pipeline(), tmp_path / "dit")
    edit(folder / file, **changes)

    with pytest.raises(BackboneError) as error:
        load_backbone(folder)

    assert words in str(error.value)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_autoencoder_of_other_latents_is_refused(tiny_pipelines, tmp_path):
    pipeline = LDMPipeline(
        vqvae=tiny_pipelines.autoencoder(), unet=tiny_pipelines.unet(), scheduler=tiny_pipelines.ddim()
    )

    with pytest.raises(BackboneError, match="makes latents of 4 channels, the network beside it draws 3"):
        load_backbone(tiny_pipelines.save(pipeline, tmp_path / "mixed"))


@pytest.mark.parametrize(
    ("changes", "scheduler", "words"),
    [
        ({"time_embedding_type": "fourier"}, {}, "fourier time embedding, which goes with a ScoreSdeVeScheduler only"),
        ({"out_channels": 6}, {"_class_name": "EDMEulerScheduler"}, "as many output as input channels, it has 6 and 3"),
        ({}, {"_class_name": "EDMEulerScheduler", "prediction_type": "sample"}, "edm family cannot predict sample"),
        ({"class_embed_type": "timestep"}, {}, "class_embed_type 'timestep' is not supported"),
        (
            {},
            {"timestep_type": "continuous", "_class_name": "EulerDiscreteScheduler"},
            "must be discrete",
        ),
    ],
)
def test_u_nets_that_the_contract_cannot_hold_are_refused(tiny_pipelines, tmp_path, changes, scheduler, words):
    pipeline = DDIMPipeline(tiny_pipelines.unet(**changes), tiny_pipelines.ddim())
    folder = tiny_pipelines.save(pipeline, tmp_path / "model")
    edit(folder / SCHEDULER, **scheduler)

    with pytest.raises(BackboneError) as error:
        load_backbone(folder)

    assert words in str(error.value)
    assert "\n" not in str(error.value)
