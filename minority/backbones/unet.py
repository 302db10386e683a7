"""Reduces diffusers' UNet2DModel to the denoiser contract.

Whatever a network predicts becomes a noise prediction, in fp32:

    x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps            (prediction "epsilon" or "sample")
    v   = sqrt(abar_t) eps - sqrt(1 - abar_t) x_0            (Salimans & Ho 2022, appendix D)

Shapes: B samples, C channels, H x W pixels; images are in [-1, 1].
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from minority.backbones.backbone import BackboneError
from minority.denoiser import Denoiser, Prediction
from minority.schedule import NoiseSchedule

_FP16_INPUT = 1024.0  # standard deviations; the states of a chain stay within some tens

PredictionType = Literal["epsilon", "sample", "v_prediction"]


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
    """

    prediction_type: PredictionType = "epsilon"
    num_classes: int | None = None
    low_resolution: bool = False
    attention_heads: int | None = None
    timestep_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.prediction_type not in ("epsilon", "sample", "v_prediction"):
            raise BackboneError(
                f"prediction_type must be epsilon, sample or v_prediction, got {self.prediction_type!r}."
            )


class UNetDenoiser(nn.Module):
    """A U-Net as a denoiser.

    Twice as many output as image channels mean a learned-range variance: the second half v in [-1, 1] gives the
    variance fraction (v + 1) / 2 (Nichol & Dhariwal 2021, section 3.1).

    Args:
        unet: Takes ([B, C or 2C, H, W], timesteps, class_labels); is set to evaluation.
        schedule: All trained noise levels.
        settings: What else must be known.

    Raises:
        BackboneError: Where the U-Net's channels or class embeddings do not fit the settings.
    """

    sqrt_abar: Tensor
    sqrt_one_minus_abar: Tensor

    def __init__(self, unet: UNet2DModel, schedule: NoiseSchedule, *, settings: UNetSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or UNetSettings()
        self.unet = unet.eval()
        if self.settings.attention_heads is not None:
            set_attention_heads(unet, self.settings.attention_heads)
        self.image_channels = unet.config.in_channels // (2 if self.settings.low_resolution else 1)
        self.learns_variance = unet.config.out_channels == 2 * self.image_channels
        self.no_label = self._check_classes()
        if unet.config.out_channels not in (self.image_channels, 2 * self.image_channels):
            raise BackboneError(
                f"a U-Net for {self.image_channels} image channels must have as many output channels, or twice as "
                f"many where it learns its variance; it has {unet.config.out_channels}."
            )
        abar = torch.from_numpy(schedule.abar)
        self.register_buffer("sqrt_abar", abar.sqrt().float(), persistent=False)
        self.register_buffer("sqrt_one_minus_abar", (1.0 - abar).sqrt().float(), persistent=False)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return self.image_channels, height, width

    def forward(self, x_t: Tensor, timestep: Tensor, label: Tensor | None = None) -> Prediction:
        """Predict the noise; see `minority.denoiser.Denoiser`. Raises ValueError where a needed label is missing."""
        if self.settings.low_resolution:
            raise ValueError(
                "this backbone is an upsampler: pass it a low-resolution image first, denoiser.conditioned_on(image)."
            )
        return self._predict(x_t, x_t, timestep=timestep, label=label)

    def conditioned_on(self, low_resolution: Tensor) -> Denoiser:
        """The denoiser of an upsampler for given images.

        Args:
            low_resolution: (B, C, h, w) images in [-1, 1], one for each sample of the batch to come.

        Raises:
            ValueError: Where this backbone takes no such image.
        """
        if not self.settings.low_resolution:
            raise ValueError("this backbone takes no low-resolution image; call it directly.")

        def denoise(x_t: Tensor, timestep: Tensor, label: Tensor | None) -> Prediction:
            enlarged = F.interpolate(
                low_resolution.to(x_t), size=x_t.shape[-2:], mode="bilinear", align_corners=False, antialias=False
            )
            return self._predict(x_t, torch.cat([x_t, enlarged], dim=1), timestep=timestep, label=label)

        return denoise

    def _predict(self, x_t: Tensor, network_input: Tensor, *, timestep: Tensor, label: Tensor | None) -> Prediction:
        time = timestep if self.settings.timestep_scale == 1.0 else timestep.float() * self.settings.timestep_scale
        labels = self._labels(label, batch=len(x_t), device=x_t.device)
        if self.unet.dtype == torch.float16:
            # A state so far out is ruined already; fp16 would turn it into NaN.
            network_input = network_input.clamp(-_FP16_INPUT, _FP16_INPUT)
        output = self.unet(network_input.to(self.unet.dtype), time, class_labels=labels, return_dict=False)[0].float()
        predicted, *variance = output.split(self.image_channels, dim=1)
        eps, x0_hat = self._read(predicted, x_t.float(), timestep)
        return Prediction(eps, (variance[0] + 1) / 2 if variance else None, x0_hat)

    def _read(self, predicted: Tensor, x_t: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor | None]:
        """The predicted noise, and the clean image where the network predicts it or v."""
        if self.settings.prediction_type == "epsilon":
            return predicted, None
        signal = self.sqrt_abar[timestep].view(-1, 1, 1, 1)
        noise = self.sqrt_one_minus_abar[timestep].view(-1, 1, 1, 1)
        if self.settings.prediction_type == "sample":
            return (x_t - signal * predicted) / noise, predicted
        return signal * predicted + noise * x_t, signal * x_t - noise * predicted

    def _labels(self, label: Tensor | None, *, batch: int, device: torch.device) -> Tensor | None:
        if self.settings.num_classes is None:
            if label is not None:
                raise ValueError("this backbone is unconditional: it takes no labels, pass None.")
            return None
        if label is not None:
            return label
        if self.no_label is None:
            raise ValueError(
                f"this backbone needs a label of 0 ... {self.settings.num_classes - 1} for every sample, got None."
            )
        return torch.full((batch,), self.no_label, dtype=torch.int64, device=device)

    def _check_classes(self) -> int | None:
        rows, classes = self.unet.config.num_class_embeds, self.settings.num_classes
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


def build_on_meta(config: Mapping[str, object]) -> UNet2DModel:
    """A U-Net of a config whose parameters have shapes but no memory; fill it by `load_state_dict(assign=True)`."""
    with torch.device("meta"):
        return UNet2DModel.from_config(dict(config))


def list_differences(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> str:
    """Say in one line how two tables of tensor shapes differ, naming the first three of each kind; "" if equal."""
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    misshapen = [
        f"{name} {_by(found[name])} instead of {_by(shape)}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    return "; ".join(f"{len(names)} {kind}: {_first(names)}" for kind, names in kinds.items() if names)


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape) or "scalar"
