"""FLUX.1, dev and schnell (Black Forest Labs 2024): a flow over packed latents, told by T5 and CLIP's pooled state."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn

from minority.backbones.text.family import Family, dynamic_shift
from minority.diffusion.condition import Embedding

_LENGTH = 512  # tokens of T5, the pipeline's own
_GUIDANCE = 3.5  # the pipeline's own


class Flux(Family):
    """FLUX.1-dev, which is told a guidance scale, and FLUX.1-schnell, which is not."""

    pipelines = ("FluxPipeline",)
    network_class = FluxTransformer2DModel
    limits = (("tokenizer", None), ("tokenizer_2", _LENGTH))

    @property
    def distilled(self) -> str | None:
        """Schnell is told no guidance scale."""
        return None if self.config.get("guidance_embeds") else "it is FLUX.1-schnell, distilled to a few steps"

    @property
    def latent_side(self) -> int:
        """That of 1024 pixels."""
        return 128

    @property
    def channels(self) -> int:
        """Each token holds 2 x 2 latent pixels."""
        return int(self.config["in_channels"]) // 4

    def wrap(self, network: nn.Module) -> nn.Module:
        """The transformer, packing latents itself."""
        return PackedFlux(network)

    def embed(self, parts: Any, texts: Sequence[str]) -> Embedding:
        """T5's states and CLIP's pooled embedding."""
        text, pooled, _ = parts.encode_prompt(list(texts), None, device="cpu", max_sequence_length=_LENGTH)
        return Embedding({"text": text, "pooled": pooled})

    def run(self, network: nn.Module, x: Tensor, time: Tensor, embedding: Embedding) -> Tensor:
        """The transformer's prediction."""
        text, pooled = embedding.tensors["text"].to(x.dtype), embedding.tensors["pooled"].to(x.dtype)
        guidance = None
        if self.config.get("guidance_embeds"):
            scale = _GUIDANCE if self.guidance is None else self.guidance
            guidance = torch.full((len(x),), scale, dtype=x.dtype, device=x.device)
        output: Tensor = network(x, time.to(x.dtype), text, pooled, guidance)
        return output

    def sigmas(self, scheduler: Any, num_steps: int, shape: tuple[int, int, int]) -> Tensor:
        """Evenly spaced, shifted by the number of tokens where the scheduler says so."""
        mu = dynamic_shift(scheduler.config, shape[1] * shape[2] // 4)
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / num_steps, num_steps), mu=mu)
        sigmas: Tensor = scheduler.sigmas[:-1]
        return sigmas


class PackedFlux(nn.Module):
    """The transformer over latents as they are.

    Args:
        transformer: Takes 2 x 2 latent pixels a token, and the places of all tokens.
    """

    _supports_gradient_checkpointing = True

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def enable_gradient_checkpointing(self) -> None:
        """Pass it on to the transformer."""
        self.transformer.enable_gradient_checkpointing()  # type: ignore[operator]

    def forward(self, x: Tensor, time: Tensor, text: Tensor, pooled: Tensor, guidance: Tensor | None) -> Tensor:
        """Noise minus clean state, (B, C, H, W)."""
        batch, channels, height, width = x.shape
        rows, columns = height // 2, width // 2
        packed = x.view(batch, channels, rows, 2, columns, 2).permute(0, 2, 4, 1, 3, 5)
        coordinates = torch.zeros(rows, columns, 3, dtype=x.dtype, device=x.device)
        coordinates[..., 1] += torch.arange(rows, device=x.device)[:, None]
        coordinates[..., 2] += torch.arange(columns, device=x.device)
        output: Tensor = self.transformer(
            hidden_states=packed.reshape(batch, rows * columns, 4 * channels),
            timestep=time,
            guidance=guidance,
            pooled_projections=pooled,
            encoder_hidden_states=text,
            txt_ids=torch.zeros(text.shape[1], 3, dtype=x.dtype, device=x.device),
            img_ids=coordinates.view(-1, 3),
            return_dict=False,
        )[0]
        unpacked = output.view(batch, rows, columns, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return unpacked.reshape(batch, channels, height, width)
