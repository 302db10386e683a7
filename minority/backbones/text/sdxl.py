"""Stable Diffusion XL (Podell et al. 2023), Turbo and Lightning: two CLIP encoders, a pooled embedding and sizes."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from minority.backbones.backbone import BackboneError
from minority.backbones.text.clip import ClipEncoder, Position
from minority.backbones.text.family import Family, lcm_condition
from minority.diffusion.condition import Embedding

_LAYER = -2  # the last but one layer of both encoders


class StableDiffusionXL(Family):
    """SDXL base and what was distilled from it."""

    pipelines = ("StableDiffusionXLPipeline",)
    network_class = UNet2DConditionModel
    part = "unet"
    process = "numbered"
    limits = (("tokenizer", None), ("tokenizer_2", None))
    multiple = 1

    @property
    def refusal(self) -> str | None:
        """Inpainting networks see more than the latent; refiners have other conditions."""
        config = self.config
        if config["in_channels"] != config["out_channels"]:
            return "it sees more than the latent, as inpainting networks do"
        if config.get("addition_embed_type") != "text_time":
            return "its addition_embed_type is not text_time"
        return None

    @property
    def distilled(self) -> str | None:
        """Networks that are told a guidance scale have it distilled in, as LCM's."""
        takes_scale = self.config.get("time_cond_proj_dim") is not None
        return "it is told a guidance scale (time_cond_proj_dim)" if takes_scale else None

    def wrap(self, network: nn.Module) -> nn.Module:
        """The U-Net with its added conditions as arguments of their own."""
        return FlatUNet(network)

    def embed(self, parts: Any, texts: Sequence[str]) -> Embedding:
        """Both encoders' states side by side, and the second one's pooled embedding."""
        return self._joined(parts, [clip(texts, hidden=_LAYER) for clip in self.clips(parts)])

    def embed_negative(self, parts: Any, text: str | None) -> Embedding:
        """Zeros where no negative prompt is given and the pipeline says so, else its embedding."""
        embedding = self.embed(parts, [text or ""])
        if text is None and parts.config.get("force_zeros_for_empty_prompt", True):
            return Embedding({name: torch.zeros_like(tensor) for name, tensor in embedding.tensors.items()})
        return embedding

    def clips(self, parts: Any) -> list[ClipEncoder]:
        """Both.

        Raises:
            BackboneError: Where the folder has the second one alone, as refiners do.
        """
        if parts.text_encoder is None or parts.text_encoder_2 is None:
            raise BackboneError("an SDXL pipeline needs both of its text encoders; refiners are not supported.")
        return [
            ClipEncoder(parts.tokenizer, parts.text_encoder),
            ClipEncoder(parts.tokenizer_2, parts.text_encoder_2),
        ]

    def embed_with_tokens(
        self, parts: Any, texts: Sequence[str], tokens: Sequence[Tensor], position: Position
    ) -> Embedding:
        """The same with learnable tokens in both encoders."""
        pairs = zip(self.clips(parts), tokens, strict=True)
        return self._joined(
            parts, [clip(texts, tokens=words, position=position, hidden=_LAYER) for clip, words in pairs]
        )

    def run(self, network: nn.Module, x: Tensor, time: Tensor, embedding: Embedding) -> Tensor:
        """The U-Net's prediction, for an image of its own size that was not cropped."""
        text, pooled = embedding.tensors["text"].to(x.dtype), embedding.tensors["pooled"].to(x.dtype)
        height, width = x.shape[-2] * self.factor, x.shape[-1] * self.factor
        sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=x.dtype, device=x.device)
        condition = lcm_condition(self.config, self.guidance, x)
        output: Tensor = network(x, time, text, pooled, sizes.expand(len(x), -1), condition)
        return output

    def _joined(self, parts: Any, encoded: list[tuple[Tensor, Tensor]]) -> Embedding:
        (first, _), (second, pooled) = encoded
        return Embedding({"text": torch.cat([first, second], dim=-1), "pooled": pooled})


class FlatUNet(nn.Module):
    """A U-Net whose added conditions are arguments of their own, so that it can be recorded and filled up.

    Args:
        unet: Takes them in a dictionary.
    """

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    @property
    def _supports_gradient_checkpointing(self) -> bool:
        return True

    def enable_gradient_checkpointing(self) -> None:
        """Pass it on to the U-Net."""
        self.unet.enable_gradient_checkpointing()  # type: ignore[operator]

    def forward(
        self, x: Tensor, time: Tensor, text: Tensor, pooled: Tensor, sizes: Tensor, condition: Tensor | None = None
    ) -> Tensor:
        """The U-Net's prediction, (B, C, H, W)."""
        added = {"text_embeds": pooled, "time_ids": sizes}
        output: Tensor = self.unet(
            x, time, encoder_hidden_states=text, timestep_cond=condition, added_cond_kwargs=added, return_dict=False
        )[0]
        return output
