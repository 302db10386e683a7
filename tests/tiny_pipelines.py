"""Tiny pipelines with random weights, built and saved by diffusers itself: folders with the true file names."""

import warnings

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    VQModel,
)

from tests.tiny_networks import tiny_unet


def unet(seed=0, **changes):
    """A UNet2DModel of 8x8, three channels and attention."""
    settings = {"channels": 3, "widths": (8, 16), "attention": True, "attention_head_dim": 4}
    return tiny_unet(seed, **settings | changes).eval()


def score_unet(**changes):
    """A UNet2DModel laid out as the published score-based ones are."""
    return unet(
        center_input_sample=True,
        time_embedding_type="fourier",
        down_block_types=("SkipDownBlock2D", "AttnSkipDownBlock2D"),
        up_block_types=("AttnSkipUpBlock2D", "SkipUpBlock2D"),
        norm_num_groups=None,
        block_out_channels=(32, 32),
        **changes,
    )


def transformer(classes=4):
    """A DiT for 4x4 latents of 4 channels that learns its variance; every weight random, its output included."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=4,
            out_channels=8,
            num_layers=2,
            sample_size=4,
            patch_size=2,
            num_embeds_ada_norm=classes,
        )
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        return model.eval()


def autoencoder(latent_channels=4):
    """An AutoencoderKL that halves images."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=latent_channels,
            norm_num_groups=4,
            scaling_factor=0.5,
        ).eval()


def quantiser():
    """A VQModel that halves images to latents of 3 channels."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = VQModel(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=3,
            num_vq_embeddings=32,
            norm_num_groups=4,
            scaling_factor=0.7,
        )
        # As wide as latents are; diffusers' own start makes all codes, and with them all images, nearly the same.
        torch.nn.init.normal_(model.quantize.embedding.weight)
        return model.eval()


def ddim(**changes):
    """DDIM's scheduler; clips nothing unless told to."""
    return DDIMScheduler(**{"clip_sample": False} | changes)


def save(pipeline, folder):
    """Save a pipeline, without other libraries' deprecations. Returns the folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline.save_pretrained(folder)
    return folder


def dit_pipeline():
    return DiTPipeline(transformer=transformer(), vae=autoencoder(), scheduler=ddim())


def adm_files(folder):
    """Two ADM checkpoints as a user has them: images of 8x8 pixels, and an upsampler to 16x16; seven classes.

    Returns both paths and the flags that their tensors do not tell, by stage.
    """
    from minority.backbones import AdmFlags
    from minority.backbones.adm import layout_of
    from minority.backbones.adm_layout import expected_shapes

    untold = {"noise_schedule": "linear", "use_new_attention_order": False, "num_heads": 4}
    stages = {"first": {"image_size": 8} | untold, "upsampler": {"image_size": 16} | untold}
    shared = {"num_channels": 32, "channel_mult": (1, 1), "num_res_blocks": 1, "class_cond": True, "image_channels": 3}
    switches = {"use_scale_shift_norm": True, "resblock_updown": True, "learn_sigma": True}
    for name, flags in stages.items():
        whole = AdmFlags(
            **flags, **shared, **switches, attention_resolutions=(4, 8), low_resolution=name == "upsampler"
        )
        generator = torch.Generator().manual_seed(len(name))
        shapes = expected_shapes(layout_of(whole, {"label_emb.weight": (7, 0)}))
        tensors = {key: 0.1 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}
        torch.save(tensors, folder / f"{name}.pt")
    return folder / "first.pt", folder / "upsampler.pt", stages
