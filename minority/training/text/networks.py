"""The parts of a small text-to-image model, of diffusers' and transformers' own classes, and the folder they make.

Laid out as Stable Diffusion 1.x: tokenizer/, text_encoder/, unet/, vae/, scheduler/ and model_index.json.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn

from minority.training.text.settings import TextModelSettings

#: The noise of Stable Diffusion 1.x.
NOISE = {"num_train_timesteps": 1000, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"


@dataclass(frozen=True, eq=False)
class Parts:
    """What a model is made of.

    Attributes:
        tokenizer: transformers' CLIPTokenizer.
        text_encoder: CLIPTextModel.
        unet: Predicts the noise of latents.
        autoencoder: Its config's scaling_factor belongs to trained weights.
    """

    tokenizer: Any
    text_encoder: Any
    unet: UNet2DConditionModel
    autoencoder: AutoencoderKL

    def prompted(self) -> nn.ModuleDict:
        """What is trained on captions: the U-Net and its text encoder."""
        return nn.ModuleDict({"unet": self.unet, "text_encoder": self.text_encoder})


def build_parts(words: Sequence[str], settings: TextModelSettings, *, size: int) -> Parts:
    """All parts with their initial weights.

    Args:
        words: That are to be one token each, in small letters.
        settings: See `TextModelSettings`.
        size: Side of the images in pixels.

    Raises:
        ValueError: Where the autoencoder's levels do not halve such images.
    """
    factor = 2 ** (len(settings.autoencoder_widths) - 1)
    if size % (factor * 2 ** (len(settings.widths) - 1)):
        raise ValueError(
            f"images of {size} pixels cannot be halved by the {len(settings.autoencoder_widths)} levels of the "
            f"autoencoder and the {len(settings.widths)} of the U-Net; give fewer widths."
        )
    tokenizer = build_tokenizer(words, length=settings.text_length)
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        return Parts(tokenizer, _text_encoder(tokenizer, settings), _unet(settings, size // factor), _vae(settings))


def build_tokenizer(words: Sequence[str], *, length: int) -> Any:
    """A byte-pair tokenizer as CLIP's, which has every word of a list as one token and spells all others.

    Args:
        words: In small letters.
        length: Tokens of a text at most, begin and end included.

    Returns:
        transformers' CLIPTokenizer.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    learning = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learning.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=2**16, end_of_word_suffix="</w>", show_progress=False)
    learning.train_from_iterator(sorted(set(words)), trainer)
    merges = [tuple(pair) for pair in json.loads(learning.to_str())["model"]["merges"]]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = dict.fromkeys([*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges), _BEGIN, _END])
    vocabulary = {name: number for number, name in enumerate(names)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=length)


def save_parts(folder: Path, parts: Parts, *, card: str = "") -> Path:
    """Write a model in fp16 as a Stable Diffusion folder; it appears whole, and replaces one that stood there.

    Args:
        folder: To be made.
        parts: Trained.
        card: Text of the model card, Markdown.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    pipeline = StableDiffusionPipeline(
        vae=parts.autoencoder.half(),
        text_encoder=parts.text_encoder.half(),
        tokenizer=parts.tokenizer,
        unet=parts.unet.half(),
        scheduler=DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(partial)
    _as_older_tokenizers(partial / "tokenizer")
    (partial / "README.md").write_text(card or f"# {folder.name}\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    return partial.rename(folder)


def _as_older_tokenizers(folder: Path) -> None:
    """A tokenizer's vocab.json and merges.txt, as Stable Diffusion's folders have them, instead of one file."""
    whole = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (folder / "vocab.json").write_text(json.dumps(whole["vocab"], ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in whole["merges"])]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "tokenizer.json").unlink()


def _text_encoder(tokenizer: Any, settings: TextModelSettings) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.text_width,
        intermediate_size=2 * settings.text_width,
        num_hidden_layers=settings.text_layers,
        num_attention_heads=settings.text_width // 16,
        max_position_embeddings=settings.text_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def _unet(settings: TextModelSettings, latent_side: int) -> UNet2DConditionModel:
    attending = len(settings.widths) - 1
    return UNet2DConditionModel(
        sample_size=latent_side,
        in_channels=settings.latent_channels,
        out_channels=settings.latent_channels,
        block_out_channels=settings.widths,
        down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * attending),
        up_block_types=(*("CrossAttnUpBlock2D",) * attending, "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=settings.text_width,
        attention_head_dim=4,  # the number of heads, as diffusers reads it
        norm_num_groups=16,
    )


def _vae(settings: TextModelSettings) -> AutoencoderKL:
    levels = len(settings.autoencoder_widths)
    return AutoencoderKL(
        block_out_channels=settings.autoencoder_widths,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        latent_channels=settings.latent_channels,
        norm_num_groups=8,
        layers_per_block=1,
    )
