"""PixArt-alpha and -Sigma (Chen et al. 2024): a transformer told by T5, numbered noise levels, a variance not used."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import PixArtTransformer2DModel
from torch import Tensor, nn

from minority.backbones.text.family import Family
from minority.diffusion.condition import Embedding


class PixArtAlpha(Family):
    """PixArt-alpha."""

    pipelines = ("PixArtAlphaPipeline",)
    network_class = PixArtTransformer2DModel
    process = "numbered"
    limits = (("tokenizer", 120),)
    length: ClassVar[int] = 120

    def wrap(self, network: nn.Module) -> nn.Module:
        """The transformer with its added conditions as arguments of their own."""
        return FlatPixArt(network)

    def embed(self, parts: Any, texts: Sequence[str]) -> Embedding:
        """T5's states and which of them are words; the prompt in small letters, as published."""
        text, mask, _, _ = parts.encode_prompt(
            list(texts), do_classifier_free_guidance=False, device="cpu", max_sequence_length=self.length
        )
        return Embedding({"text": text, "mask": mask})

    def run(self, network: nn.Module, x: Tensor, time: Tensor, embedding: Embedding) -> Tensor:
        """The transformer's prediction, its variance behind it."""
        sizes = None
        takes_sizes = self.config.get("use_additional_conditions")
        if self.config.get("sample_size") == 128 if takes_sizes is None else takes_sizes:
            side = float(x.shape[-1] * self.factor)
            sizes = torch.tensor([[x.shape[-2] * self.factor, side]], dtype=x.dtype, device=x.device)
            sizes = sizes.expand(len(x), -1)
        text, mask = embedding.tensors["text"].to(x.dtype), embedding.tensors["mask"]
        output: Tensor = network(x, time, text, mask, sizes)
        return output


class PixArtSigma(PixArtAlpha):
    """PixArt-Sigma, which takes longer prompts."""

    pipelines = ("PixArtSigmaPipeline",)
    limits = (("tokenizer", 300),)
    length = 300


class FlatPixArt(nn.Module):
    """A transformer whose added conditions are arguments of their own.

    Args:
        transformer: Takes them in a dictionary.
    """

    _supports_gradient_checkpointing = True

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def enable_gradient_checkpointing(self) -> None:
        """Pass it on to the transformer."""
        self.transformer.enable_gradient_checkpointing()  # type: ignore[operator]

    def forward(self, x: Tensor, time: Tensor, text: Tensor, mask: Tensor, sizes: Tensor | None) -> Tensor:
        """The transformer's output; sizes are (B, 2) height and width in image pixels, for those that are told."""
        ratio = None if sizes is None else sizes[:, :1] / sizes[:, 1:]
        output: Tensor = self.transformer(
            x,
            encoder_hidden_states=text,
            encoder_attention_mask=mask,
            timestep=time,
            added_cond_kwargs={"resolution": sizes, "aspect_ratio": ratio},
            return_dict=False,
        )[0]
        return output
