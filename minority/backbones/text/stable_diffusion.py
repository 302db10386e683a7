"""Stable Diffusion 1.x and 2.x (Rombach et al. 2022): one CLIP encoder, numbered noise levels, noise or v predicted."""

from collections.abc import Sequence
from typing import Any

from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from minority.backbones.text.clip import ClipEncoder, Position
from minority.backbones.text.family import Family, lcm_condition
from minority.diffusion.condition import Embedding


class StableDiffusion(Family):
    """Stable Diffusion 1.x and 2.x."""

    pipelines = ("StableDiffusionPipeline", "LatentConsistencyModelPipeline")
    network_class = UNet2DConditionModel
    part = "unet"
    process = "numbered"
    limits = (("tokenizer", None),)
    multiple = 1

    @property
    def refusal(self) -> str | None:
        """Inpainting and upscaling networks see more than the latent."""
        if self.config["in_channels"] != self.config["out_channels"]:
            return "it sees more than the latent, as inpainting and upscaling networks do"
        if self.config.get("addition_embed_type") is not None or self.config.get("class_embed_type") is not None:
            return "it is told more than the prompt (addition_embed_type, class_embed_type)"
        return None

    @property
    def distilled(self) -> str | None:
        """Networks that are told a guidance scale have it distilled in, as LCM's."""
        takes_scale = self.config.get("time_cond_proj_dim") is not None
        return "it is told a guidance scale (time_cond_proj_dim)" if takes_scale else None

    def embed(self, parts: Any, texts: Sequence[str]) -> Embedding:
        """The last states of the encoder."""
        return Embedding({"text": self.clips(parts)[0](texts)[0]})

    def clips(self, parts: Any) -> list[ClipEncoder]:
        """The one."""
        return [ClipEncoder(parts.tokenizer, parts.text_encoder)]

    def embed_with_tokens(
        self, parts: Any, texts: Sequence[str], tokens: Sequence[Tensor], position: Position
    ) -> Embedding:
        """The same with learnable tokens."""
        return Embedding({"text": self.clips(parts)[0](texts, tokens=tokens[0], position=position)[0]})

    def run(self, network: nn.Module, x: Tensor, time: Tensor, embedding: Embedding) -> Tensor:
        """The U-Net's prediction."""
        text = embedding.tensors["text"].to(x.dtype)
        condition = lcm_condition(self.config, self.guidance, x)
        output: Tensor = network(x, time, encoder_hidden_states=text, timestep_cond=condition, return_dict=False)[0]
        return output
