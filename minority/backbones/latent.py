"""Latent backbones (Rombach et al. 2022): the chain is one of latents of an autoencoder, which decodes its end.

Shapes: B samples, C channels, H x W pixels; images are in [-1, 1].
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderDC, AutoencoderKL, VQModel
from torch import Tensor

from minority.backbones.backbone import BackboneError
from minority.backbones.component import load_component, read_json

_CLASSES = {"AutoencoderKL": AutoencoderKL, "VQModel": VQModel, "AutoencoderDC": AutoencoderDC}
_DECODED_AT_ONCE = 64  # latents; more of them would hold more memory than the chain itself


@dataclass(frozen=True, eq=False)
class AutoencoderCodec:
    """An autoencoder as a codec, in fp32.

    Attributes:
        autoencoder: AutoencoderKL, VQModel or AutoencoderDC.
        state_shape: (C, H, W) of one latent.
    """

    autoencoder: AutoencoderKL | VQModel | AutoencoderDC
    state_shape: tuple[int, int, int]
    discretised: bool = False

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        _, height, width = self.state_shape
        factor = reduction_of(self.autoencoder.config)
        channels = self.autoencoder.config.get("out_channels") or self.autoencoder.config.in_channels
        return channels, height * factor, width * factor

    def encode(self, images: Tensor) -> Tensor:
        """The latents of images, scaled as in the chain; of a KL autoencoder the mode, so nothing is drawn."""
        if isinstance(self.autoencoder, VQModel):
            latents = self.autoencoder.encode(images).latents
        elif isinstance(self.autoencoder, AutoencoderDC):
            latents = self.autoencoder.encode(images).latent
        else:
            latents = self.autoencoder.encode(images).latent_dist.mode()
        return (latents - self._shift) * self._scale

    def decode(self, states: Tensor) -> Tensor:
        """The images of latents; differentiable, for a vector-quantised autoencoder as if nothing were quantised."""
        images: Tensor = self.autoencoder.decode(states / self._scale + self._shift).sample
        return images

    def finish(self, states: Tensor, seed: int, indices: Sequence[int], label: Tensor | None) -> tuple[Tensor, float]:
        """The images of drawn latents. Decoding takes no network calls of the chain and no noise."""
        if len(states) <= _DECODED_AT_ONCE:
            return self.decode(states), 0.0
        return torch.cat([self.decode(part) for part in states.split(_DECODED_AT_ONCE)]), 0.0

    @property
    def finish_evaluations(self) -> float:
        """None, of the chain's network."""
        return 0.0

    def to(self, device: torch.device) -> "AutoencoderCodec":
        """The same codec on a device."""
        return AutoencoderCodec(copy.deepcopy(self.autoencoder).to(device), self.state_shape)

    def in_precision(self, precision: str) -> "AutoencoderCodec":
        """The same codec: autoencoders overflow in fp16, and are called once a sample."""
        return self

    @property
    def _scale(self) -> float:
        return float(self.autoencoder.config.scaling_factor)

    @property
    def _shift(self) -> float:
        return float(self.autoencoder.config.get("shift_factor") or 0.0)


def reduction_of(config: Mapping[str, Any]) -> int:
    """Image pixels a latent pixel of an autoencoder with this config."""
    widths = config.get("encoder_block_out_channels") or config["block_out_channels"]
    return int(2 ** (len(widths) - 1))


def load_autoencoder(
    folder: Path, *, state_shape: tuple[int, int, int], facts: list[str] | None = None
) -> AutoencoderCodec:
    """Read the autoencoder of a latent pipeline.

    Args:
        folder: Its folder, `vae` or `vqvae`.
        state_shape: (C, H, W) of the latents of the chain.
        facts: Receives, in words, which weights were read.

    Raises:
        BackboneError: Where it is of another kind, broken, or makes latents of other channels.
    """
    config = read_json(folder / "config.json")
    family = config.get("_class_name")
    if family not in _CLASSES:
        raise BackboneError(
            f"{folder / 'config.json'} is of a {family}; it must be AutoencoderKL, VQModel or AutoencoderDC."
        )
    if config.get("latents_mean") is not None or config.get("latents_std") is not None:
        raise BackboneError(f"{folder} scales every channel on its own (latents_mean), which is not supported.")
    autoencoder = load_component(_CLASSES[family], folder, config, facts=facts)
    channels = autoencoder.config.get("vq_embed_dim") or autoencoder.config.latent_channels
    if channels != state_shape[0]:
        raise BackboneError(
            f"{folder} makes latents of {channels} channels, the network beside it draws {state_shape[0]}; take both "
            "from the same pipeline."
        )
    return AutoencoderCodec(autoencoder, state_shape)
