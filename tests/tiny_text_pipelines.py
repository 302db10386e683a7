"""Tiny text-to-image pipelines with random weights, as diffusers and transformers save them, under the true names."""

import warnings
from pathlib import Path

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

GOLDEN = Path(__file__).parent / "minority" / "golden" / "t2i"
_WORDS = ["a", "photo", "of", "dog", "cat", "old", "white", "coat", "in", "the", "chef", "red", "blue"]


def _random(build, seed=0, spread=None):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build()
        for name, parameter in model.named_parameters() if spread else ():
            torch.nn.init.normal_(parameter, std=spread)
            if "norm" in name and name.endswith("weight"):
                parameter.data += 1
        return model.eval()


def autoencoder(channels=4, **scales):
    """An AutoencoderKL that halves images."""
    return _random(
        lambda: AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=channels,
            norm_num_groups=4,
            **scales,
        )
    )


def _clip_tokenizer():
    return CLIPTokenizer.from_pretrained(GOLDEN / "sd" / "tokenizer")


def _clip(projection=24):
    config = CLIPTextConfig(
        vocab_size=583,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=16,
        projection_dim=projection,
        bos_token_id=581,
        eos_token_id=582,
    )
    return _random(lambda: CLIPTextModelWithProjection(config), seed=3, spread=0.1)


def _t5():
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), *((f"▁{word}", -1.0) for word in _WORDS)]
    config = T5Config(
        vocab_size=len(pieces) + 100, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, is_encoder_decoder=False
    )
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=100)
    return tokenizer, _random(lambda: T5EncoderModel(config), seed=4, spread=0.2)


def _gemma():
    words = [*_WORDS, "You", "are", "an", "assistant", "<Prompt", "Start>"]
    vocabulary = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "<mask>": 4}
    vocabulary |= {piece: 5 + i for i, piece in enumerate(dict.fromkeys(c for w in words for c in f"▁{w}"))}
    tokenizer = GemmaTokenizer(vocab=vocabulary, merges=[])
    config = Gemma2Config(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=512,
    )
    return tokenizer, _random(lambda: Gemma2Model(config), seed=5, spread=0.2)


def stable_diffusion(prediction_type="epsilon"):
    """The golden Stable Diffusion with a DDIM scheduler that ends at the clean image."""
    pipeline = StableDiffusionPipeline.from_pretrained(GOLDEN / "sd")
    config = dict(pipeline.scheduler.config) | {"set_alpha_to_one": True, "prediction_type": prediction_type}
    pipeline.scheduler = DDIMScheduler.from_config(config)
    return pipeline


def sdxl(spacing="leading"):
    """The golden SDXL with an Euler scheduler."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(GOLDEN / "sdxl")
    config = dict(pipeline.scheduler.config) | {"timestep_spacing": spacing}
    pipeline.scheduler = EulerDiscreteScheduler.from_config(config)
    return pipeline


def sd3(with_t5=True, **scheduler):
    """Stable Diffusion 3 for 16x16 latents, with T5 or without."""
    transformer = _random(
        lambda: SD3Transformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_projection_dim=32,
            joint_attention_dim=80,
            pooled_projection_dim=48,
            out_channels=4,
            pos_embed_max_size=16,
        ),
        spread=0.1,
    )
    tokenizer_3, t5 = _t5() if with_t5 else (None, None)
    if with_t5:
        t5 = _wider(t5, 80)
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(**{"shift": 3.0} | scheduler),
        vae=autoencoder(scaling_factor=1.5305, shift_factor=0.0609),
        text_encoder=_clip(),
        tokenizer=_clip_tokenizer(),
        text_encoder_2=_clip(),
        tokenizer_2=_clip_tokenizer(),
        text_encoder_3=t5,
        tokenizer_3=tokenizer_3,
    )


def _wider(t5, width):
    config = T5Config(**(t5.config.to_dict() | {"d_model": width}))
    return _random(lambda: T5EncoderModel(config), seed=4, spread=0.2)


def flux(guidance_embeds=True):
    """FLUX.1 for latents of 4 channels."""
    transformer = _random(
        lambda: FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            guidance_embeds=guidance_embeds,
            axes_dims_rope=(4, 4, 8),
        ),
        spread=0.1,
    )
    tokenizer_2, t5 = _t5()
    shift = {"use_dynamic_shifting": True} if guidance_embeds else {"shift": 1.0}
    from transformers import CLIPTextModel

    return FluxPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(**shift),
        vae=autoencoder(scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=CLIPTextModel.from_pretrained(GOLDEN / "sd" / "text_encoder"),
        tokenizer=_clip_tokenizer(),
        text_encoder_2=t5,
        tokenizer_2=tokenizer_2,
    )


def pixart(sigma=False, **config):
    """PixArt for 16x16 latents, whose network has a variance behind its prediction."""
    transformer = _random(
        lambda: PixArtTransformer2DModel(
            **{"sample_size": 16}
            | {
                "num_layers": 2,
                "patch_size": 2,
                "attention_head_dim": 8,
                "num_attention_heads": 6,
                "caption_channels": 32,
                "cross_attention_dim": 48,
                "in_channels": 4,
                "out_channels": 8,
            }
            | config
        ),
        spread=0.1,
    )
    tokenizer, t5 = _t5()
    return (PixArtSigmaPipeline if sigma else PixArtAlphaPipeline)(
        transformer=transformer,
        scheduler=DDIMScheduler(clip_sample=False, timestep_spacing="leading", steps_offset=1),
        vae=autoencoder(),
        text_encoder=t5,
        tokenizer=tokenizer,
    )


def sana():
    """Sana for 16x16 latents of an autoencoder that halves images."""
    transformer = _random(
        lambda: SanaTransformer2DModel(
            patch_size=1,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            num_attention_heads=2,
            attention_head_dim=4,
            num_cross_attention_heads=2,
            cross_attention_head_dim=4,
            cross_attention_dim=8,
            caption_channels=32,
            sample_size=16,
        ),
        spread=0.1,
    )
    vae = _random(
        lambda: AutoencoderDC(
            in_channels=3,
            latent_channels=4,
            attention_head_dim=2,
            encoder_block_types=("ResBlock", "EfficientViTBlock"),
            decoder_block_types=("ResBlock", "EfficientViTBlock"),
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            encoder_qkv_multiscales=((), (5,)),
            decoder_qkv_multiscales=((), (5,)),
            encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=(1, 1),
            downsample_block_type="conv",
            upsample_block_type="interpolate",
            decoder_norm_types="rms_norm",
            decoder_act_fns="silu",
            scaling_factor=0.41407,
        )
    )
    tokenizer, gemma = _gemma()
    return SanaPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        text_encoder=gemma,
        tokenizer=tokenizer,
    )


def lumina2():
    """Lumina 2 for 16x16 latents."""
    transformer = _random(
        lambda: Lumina2Transformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=4,
            hidden_size=24,
            num_layers=2,
            num_refiner_layers=1,
            num_attention_heads=3,
            num_kv_heads=1,
            multiple_of=2,
            norm_eps=1e-5,
            scaling_factor=1.0,
            axes_dim_rope=[4, 2, 2],
            axes_lens=[300, 128, 128],
            cap_feat_dim=32,
        ),
        spread=0.1,
    )
    tokenizer, gemma = _gemma()
    return Lumina2Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=autoencoder(scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=gemma,
        tokenizer=tokenizer,
    )


def save(pipeline, folder):
    """Save a pipeline, without other libraries' deprecations. Returns the folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline.save_pretrained(folder)
    return folder
