"""Diffusers' UNet2DModel behind the denoiser contract: alone, or as an upsampler of a low-resolution image.

Shapes: B samples, C channels, H x W pixels; images are in [-1, 1].
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention
from torch import Tensor

from minority.backbones.backbone import BackboneError
from minority.backbones.factors import Factors
from minority.backbones.network import NetworkDenoiser, PredictionType, VarianceType, require_prediction_type
from minority.diffusion.denoiser import Denoiser, Prediction
from minority.diffusion.schedule import NoiseSchedule


@dataclass(frozen=True, kw_only=True)
class UNetSettings:
    """What the weights and the U-Net's own config do not say.

    Attributes:
        prediction_type: What the first C output channels are: the noise, the clean image, or v.
        num_classes: Number of real labels; None where unconditional. If the U-Net has one embedding more, the last
            one stands for "no label": it is used where the label is None, and may be passed as label num_classes.
        low_resolution: Whether the input is x_t with an upsampled low-resolution image behind it (2C channels).
        attention_heads: The same number of heads at every width; None leaves what the U-Net's config says.
        timestep_scale: The network sees timestep * timestep_scale.
        variance_type: What C more output channels say of the reverse variance: "learned_range" its place between two
            bounds, "learned" the variance itself (as in diffusers), "learned_log" its logarithm (as in
            guided-diffusion).
        factors: Label and attributes where they are separate conditions (minority/backbones/factors.py): the class
            embeddings then have a row for every combination, of which the first `num_classes` tell the label alone.
    """

    prediction_type: PredictionType = "epsilon"
    num_classes: int | None = None
    low_resolution: bool = False
    attention_heads: int | None = None
    timestep_scale: float = 1.0
    variance_type: VarianceType = "learned_range"
    factors: Factors | None = None

    def __post_init__(self) -> None:
        require_prediction_type(self.prediction_type)


class UNetDenoiser(NetworkDenoiser):
    """A U-Net as a denoiser.

    Args:
        unet: Takes ([B, C or 2C, H, W], timesteps, class_labels); is set to evaluation.
        schedule: All trained noise levels.
        settings: What else must be known.

    Raises:
        BackboneError: Where the U-Net's channels or class embeddings do not fit the settings.
    """

    def __init__(self, unet: UNet2DModel, schedule: NoiseSchedule, *, settings: UNetSettings | None = None) -> None:
        settings = settings or UNetSettings()
        channels, height, width = unet_shape(unet, low_resolution=settings.low_resolution)
        super().__init__(
            schedule,
            state_shape=(channels, height, width),
            prediction_type=settings.prediction_type,
            variance_type=settings.variance_type,
            num_classes=settings.num_classes,
            no_label=no_label_of(unet, settings.num_classes, factors=settings.factors),
        )
        self.settings, self.unet = settings, unet.eval()
        if settings.attention_heads is not None:
            set_attention_heads(unet, settings.attention_heads)
        if unet.config.out_channels not in (channels, 2 * channels):
            raise BackboneError(
                f"a U-Net for {channels} image channels must have as many output channels, or twice as many where it "
                f"learns its variance; it has {unet.config.out_channels}."
            )

    def forward(self, x_t: Tensor, timestep: Tensor, label: Tensor | None = None) -> Prediction:
        """Predict the noise (`minority.diffusion.denoiser.Denoiser`). Raises ValueError where a needed label lacks."""
        if self.settings.low_resolution:
            raise ValueError(
                "this backbone is an upsampler, the second of two stages: join it to the first (backbone.upsampler), "
                "or pass it a low-resolution image, denoiser.conditioned_on(image)."
            )
        return super().forward(x_t, timestep, label)

    def conditioned_on(self, low_resolution: Tensor) -> Denoiser:
        """The denoiser of an upsampler for given images.

        Args:
            low_resolution: (B, C, h, w) images in [-1, 1], one for each sample of the batch to come.

        Raises:
            ValueError: Where this backbone takes no such image.
        """
        if not self.settings.low_resolution:
            raise ValueError("this backbone takes no low-resolution image; call it directly.")

        def denoise(x_t: Tensor, timestep: Tensor, label: Any, /) -> Prediction:
            enlarged = F.interpolate(
                low_resolution.to(x_t), size=x_t.shape[-2:], mode="bilinear", align_corners=False, antialias=False
            )
            return self.predict(x_t, torch.cat([x_t, enlarged], dim=1), timestep=timestep, label=label)

        return denoise

    def run(self, x: Tensor, timestep: Tensor, label: Tensor | None) -> Tensor:
        """The U-Net's output; see `NetworkDenoiser.run`."""
        scale = self.settings.timestep_scale
        time = timestep if scale == 1.0 else timestep.float() * scale
        output: Tensor = self.unet(x, time, class_labels=label, return_dict=False)[0]
        return output


def unet_shape(unet: UNet2DModel, *, low_resolution: bool = False) -> tuple[int, int, int]:
    """(C, H, W) of the states of a U-Net, without the low-resolution image behind them."""
    size = unet.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    return unet.config.in_channels // (2 if low_resolution else 1), height, width


def no_label_of(unet: UNet2DModel, classes: int | None, *, factors: Factors | None = None) -> int | None:
    """The label that stands for none in a U-Net that knows so many classes; None where there is none.

    Raises:
        BackboneError: Where its class embeddings do not fit.
    """
    rows = unet.config.num_class_embeds
    if unet.config.class_embed_type is not None:
        raise BackboneError(f"class_embed_type {unet.config.class_embed_type!r} is not supported; labels are numbers.")
    if factors is not None:
        if (rows, classes) != (factors.num_rows, factors.nothing):
            raise BackboneError(
                f"a U-Net with {rows} class embeddings cannot have the conditions {', '.join(factors.names)}, which "
                f"take {factors.num_rows}, with num_classes = {factors.nothing}; got {classes}."
            )
        return factors.nothing
    if rows == classes:
        return None
    if rows is None or classes is None or rows != classes + 1:
        raise BackboneError(
            f"a U-Net with {rows} class embeddings cannot have num_classes = {classes}; it must be as many, or "
            "one less where the last embedding stands for no label."
        )
    return classes


def set_attention_heads(unet: UNet2DModel, heads: int) -> None:
    """Give every attention of a U-Net the same number of heads, whatever its width.

    The config's `attention_head_dim` cannot say this, so it is lost in it and has to be set after every load.
    """
    for attention in unet.modules():
        if isinstance(attention, Attention):
            attention.heads = heads
            attention.sliceable_head_dim = heads
            attention.scale = (attention.inner_dim // heads) ** -0.5
