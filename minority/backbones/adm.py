"""ADM / guided-diffusion checkpoints (Dhariwal & Nichol 2021) as diffusers U-Nets, converted in memory by renaming.

The tensors tell most of the architecture. They cannot tell the image size, how attention's channels fall into heads,
in which order its projection is stored, and the noise schedule: these come from a preset or from flags.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

from diffusers import UNet2DModel
from torch import Tensor

from minority.backbones.adm_flags import PRESETS, AdmFlags, read_flag
from minority.backbones.adm_layout import Layout, Shapes, expected_shapes, read_layout, rename, unet_config
from minority.backbones.backbone import Backbone, BackboneError
from minority.backbones.component import build_on_meta, list_differences
from minority.backbones.unet import UNetDenoiser, UNetSettings, set_attention_heads
from minority.diffusion.schedule import NoiseSchedule
from minority.weights import file_sha256, read_state_dict

_LANDMARK = "time_embed.0.weight"
_PUBLISHED_CLASSES = 1000  # what class_cond means in the published code


def load_adm(path: Path | str, *, preset: str | None = None, weights: str | None = None, **flags: object) -> Backbone:
    """Load an ADM checkpoint.

    Args:
        path: The `.pt` file (or the same table of tensors as `.safetensors`).
        preset: One of PRESETS.
        weights: Which model is meant where the file holds several, e.g. "ema".
        **flags: Fields of AdmFlags; they complete or override the preset.

    Raises:
        BackboneError: Where the file, the preset, the flags or the tensors do not fit.
    """
    path = Path(path)
    remedy = "say which one is meant by the flag weights, e.g. weights=ema"
    read = read_state_dict([path], landmark=_LANDMARK, pick=None if weights is None else str(weights), remedy=remedy)
    tensors = read.tensors
    chosen = _chosen_flags(path, _shapes(tensors), preset=preset, flags=flags)
    unet = convert(tensors, chosen, source=str(path))
    schedule = getattr(NoiseSchedule, chosen.noise_schedule)(chosen.diffusion_steps)
    settings = UNetSettings(
        prediction_type="sample" if chosen.predict_xstart else "epsilon",
        num_classes=unet.config.num_class_embeds,
        low_resolution=bool(_completed(chosen, _shapes(tensors)).low_resolution),
        attention_heads=chosen.num_heads,
        timestep_scale=1000 / chosen.diffusion_steps if chosen.rescale_timesteps else 1.0,
    )
    denoiser = UNetDenoiser(unet, schedule, settings=settings)
    return Backbone(
        name=path.stem,
        denoiser=denoiser,
        schedule=schedule,
        image_shape=denoiser.state_shape,
        num_classes=settings.num_classes,
        sha256=file_sha256(path),
        facts=(
            f"family: ADM U-Net, {chosen.noise_schedule} schedule, predicts {settings.prediction_type}",
            ", ".join([f"weights: {path.name}", *read.notes()]),
        ),
    )


def convert(tensors: Mapping[str, Tensor], flags: AdmFlags, *, source: str = "the checkpoint") -> UNet2DModel:
    """Turn an ADM checkpoint into diffusers' U-Net: every tensor is used, every parameter filled.

    Args:
        tensors: By ADM name, on one device (the meta device included).
        flags: How it was trained.
        source: What messages call the checkpoint.

    Returns:
        The U-Net in fp32 for evaluation, its parameters without gradients.

    Raises:
        BackboneError: Naming the first tensors that are missing, unexpected or misshapen, and the nearest preset.
    """
    shapes = _shapes(tensors)
    try:
        layout = layout_of(flags, shapes)
    except BackboneError as error:
        raise BackboneError(f"{source} {error}; {_resemblance(shapes)}.") from error
    difference = list_differences(expected_shapes(layout), shapes)
    if difference:
        raise BackboneError(f"{source} does not fit its flags ({difference}); {_resemblance(shapes)}.")
    attending = [width for width, attends in zip(layout.widths, layout.attention, strict=True) if attends]
    head_channels = math.gcd(*(width // flags.heads(width) for width in (*attending, layout.widths[-1])))
    config = unet_config(layout, image_size=flags.image_size, head_channels=head_channels, dropout=flags.dropout)
    unet: UNet2DModel = build_on_meta(UNet2DModel, config)
    legacy_heads = None if flags.use_new_attention_order else flags.heads
    unet.load_state_dict(rename(tensors, layout, legacy_heads=legacy_heads), strict=True, assign=True)
    if flags.num_heads is not None:
        set_attention_heads(unet, flags.num_heads)
    return unet.eval().requires_grad_(False)


def layout_of(flags: AdmFlags, shapes: Shapes) -> Layout:
    """The architecture by flags, and by the tensors' shapes where the flags are silent."""
    flags = _completed(flags, shapes)
    assert flags.channel_mult is not None, "_completed leaves nothing open"
    assert flags.attention_resolutions is not None, "_completed leaves nothing open"
    assert flags.num_channels is not None, "_completed leaves nothing open"
    assert flags.image_channels is not None, "_completed leaves nothing open"
    assert flags.num_res_blocks is not None, "_completed leaves nothing open"
    levels = range(len(flags.channel_mult))
    return Layout(
        in_channels=flags.image_channels * (2 if flags.low_resolution else 1),
        out_channels=flags.image_channels * (2 if flags.learn_sigma else 1),
        widths=tuple(round(flags.num_channels * mult) for mult in flags.channel_mult),
        attention=tuple(flags.image_size >> level in flags.attention_resolutions for level in levels),
        num_res_blocks=flags.num_res_blocks,
        num_class_embeds=shapes.get("label_emb.weight", (_PUBLISHED_CLASSES,))[0] if flags.class_cond else None,
        scale_shift=bool(flags.use_scale_shift_norm),
        resblock_updown=bool(flags.resblock_updown),
    )


def _completed(flags: AdmFlags, shapes: Shapes) -> AdmFlags:
    open_names = [field.name for field in fields(flags) if getattr(flags, field.name) is None]
    open_names = [name for name in open_names if name not in ("num_heads", "num_head_channels")]
    if not open_names:
        return flags
    layout = read_layout(shapes)
    # ADM makes RGB images, so six input channels are an image and its low-resolution version.
    low_resolution = layout.in_channels == 6 if flags.low_resolution is None else flags.low_resolution
    image_channels = flags.image_channels or layout.in_channels // (2 if low_resolution else 1)
    attending = (flags.image_size >> level for level, attends in enumerate(layout.attention) if attends)
    answers: dict[str, object] = {
        "num_channels": layout.widths[0],
        "channel_mult": tuple(width / (flags.num_channels or layout.widths[0]) for width in layout.widths),
        "num_res_blocks": layout.num_res_blocks,
        "attention_resolutions": tuple(attending),
        "class_cond": layout.num_class_embeds is not None,
        "use_scale_shift_norm": layout.scale_shift,
        "resblock_updown": layout.resblock_updown,
        "learn_sigma": layout.out_channels == 2 * image_channels,
        "low_resolution": low_resolution,
        "image_channels": image_channels,
    }
    return replace(flags, **{name: answers[name] for name in open_names})  # type: ignore[arg-type]


def _chosen_flags(path: Path, shapes: Shapes, *, preset: str | None, flags: Mapping[str, object]) -> AdmFlags:
    names = [field.name for field in fields(AdmFlags)]
    unknown = [name for name in flags if name not in names]
    if unknown:
        raise BackboneError(f"{path}: unknown flag {unknown[0]}; ADM checkpoints take {', '.join(names)}.")
    given = {name: read_flag(name, value, source=str(path)) for name, value in flags.items()}
    if preset is not None:
        if preset not in PRESETS:
            raise BackboneError(f"{path}: unknown preset {preset!r}; choose one of {', '.join(PRESETS)}.")
        given = {field.name: getattr(PRESETS[preset], field.name) for field in fields(AdmFlags)} | given
    needed = ["image_size", "noise_schedule", "use_new_attention_order"]
    missing = [name for name in needed if name not in given]
    if given.get("num_heads") is None and given.get("num_head_channels") is None:
        missing.append("num_heads or num_head_channels")
    if missing:
        raise BackboneError(
            f"{path}: the tensors of an ADM checkpoint do not tell {', '.join(missing)}; give them as flags, or a "
            f"preset ({', '.join(PRESETS)}); {_resemblance(shapes)}."
        )
    return AdmFlags(**given)


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


@functools.cache
def _preset_shapes(preset: str) -> dict[str, tuple[int, ...]]:
    return expected_shapes(layout_of(PRESETS[preset], {}))


def _resemblance(shapes: Shapes) -> str:
    given = set(shapes.items())

    def likeness(preset: str) -> float:
        of_preset = set(_preset_shapes(preset).items())
        return len(given & of_preset) / len(given | of_preset)

    nearest = max(PRESETS, key=likeness)
    share = likeness(nearest)
    if share < 0.05:
        return f"it resembles none of the presets {', '.join(PRESETS)}"
    return f"it resembles preset {nearest} most ({share:.0%} of the tensors are alike)"
