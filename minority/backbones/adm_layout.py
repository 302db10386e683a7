"""The tensors of ADM checkpoints (Dhariwal & Nichol 2021) and where each belongs in diffusers' UNet2DModel.

An ADM checkpoint numbers its blocks along the way down (`input_blocks`) and up (`output_blocks`); diffusers sorts
them by level. Level 0 has full resolution; every level below halves it.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from diffusers import UNet2DModel
from torch import Tensor

from minority.backbones.backbone import BackboneError
from minority.backbones.component import build_on_meta

Shapes = Mapping[str, tuple[int, ...]]

_RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_ATTENTION = {"norm": "group_norm", "qkv": "to_qkv", "proj_out": "to_out.0"}
_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb": "class_embedding",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}


@dataclass(frozen=True)
class Layout:
    """The architecture of an ADM U-Net, as far as the shapes of its tensors depend on it.

    Attributes:
        in_channels: Input channels: those of x_t, and those of a low-resolution image where it is an upsampler.
        out_channels: Output channels.
        widths: Channels at each level.
        attention: Whether each level has attention behind its residual blocks.
        num_res_blocks: Residual blocks a level on the way down; one more on the way up.
        num_class_embeds: Labels; None where unconditional.
        scale_shift: Whether the time embedding scales and shifts (else it is added).
        resblock_updown: Whether residual blocks change the resolution (else plain convolutions).
    """

    in_channels: int
    out_channels: int
    widths: tuple[int, ...]
    attention: tuple[bool, ...]
    num_res_blocks: int
    num_class_embeds: int | None
    scale_shift: bool
    resblock_updown: bool


def read_layout(shapes: Shapes) -> Layout:
    """Tell the architecture from the shapes of a checkpoint's tensors.

    Raises:
        BackboneError: Where the tensors do not tell it; the message continues a sentence about the file.
    """
    ups = {
        int(m[1]) for name in shapes if (m := re.match(r"output_blocks\.(\d+)\.[12]\.(?:conv|in_layers\.0)\.", name))
    }
    outputs = {int(m[1]) for name in shapes if (m := re.match(r"output_blocks\.(\d+)\.", name))}
    levels = len(ups) + 1
    if not outputs or outputs != set(range(len(outputs))) or len(outputs) % levels or len(outputs) < 2 * levels:
        raise BackboneError("has not the output_blocks of an ADM U-Net")
    num_res_blocks = len(outputs) // levels - 1
    firsts = [1 + level * (num_res_blocks + 1) for level in range(levels)]
    widths = tuple(_size(shapes, f"input_blocks.{first}.0.out_layers.3.weight", dim=0) for first in firsts)
    base = _size(shapes, "time_embed.0.weight", dim=1)
    if base != widths[0]:
        raise BackboneError(
            f"starts with {widths[0]} channels on a base of {base}; a channel_mult that does not start with 1 is not "
            "supported"
        )
    residual_up = r"output_blocks\.(\d+)\.[12]\.in_layers\.0\."
    return Layout(
        in_channels=_size(shapes, "input_blocks.0.0.weight", dim=1),
        out_channels=_size(shapes, "out.2.weight", dim=0),
        widths=widths,
        attention=tuple(f"input_blocks.{first}.1.qkv.weight" in shapes for first in firsts),
        num_res_blocks=num_res_blocks,
        num_class_embeds=_size(shapes, "label_emb.weight", dim=0) if "label_emb.weight" in shapes else None,
        scale_shift=_size(shapes, "input_blocks.1.0.emb_layers.1.weight", dim=0) == 2 * widths[0],
        resblock_updown=bool(_numbers(shapes, residual_up)),
    )


def unet_config(layout: Layout, *, image_size: int, head_channels: int, dropout: float = 0.0) -> dict[str, object]:
    """The arguments of diffusers' UNet2DModel for a layout.

    Args:
        layout: The architecture.
        image_size: Pixels on a side.
        head_channels: Channels of an attention head.
        dropout: Share of activations dropped in training; without effect on sampling.
    """
    plain = "Resnet{}sampleBlock2D" if layout.resblock_updown else "{}Block2D"
    down = [("AttnDownBlock2D" if attends else plain.format("Down")) for attends in layout.attention]
    up = [("AttnUpBlock2D" if attends else plain.format("Up")) for attends in reversed(layout.attention)]
    resampling = "resnet" if layout.resblock_updown else "conv"
    return {
        "sample_size": image_size,
        "in_channels": layout.in_channels,
        "out_channels": layout.out_channels,
        "center_input_sample": False,
        "time_embedding_type": "positional",
        "freq_shift": 0,
        "flip_sin_to_cos": True,
        "down_block_types": down,
        "mid_block_type": "UNetMidBlock2D",
        "add_attention": True,
        "up_block_types": up,
        "block_out_channels": list(layout.widths),
        "layers_per_block": layout.num_res_blocks,
        "mid_block_scale_factor": 1,
        "downsample_padding": 1,
        "downsample_type": resampling,
        "upsample_type": resampling,
        "dropout": dropout,
        "act_fn": "silu",
        "attention_head_dim": head_channels,
        "norm_num_groups": 32,
        # Without it the middle attention of a scale-shift U-Net would have no normalisation.
        "attn_norm_num_groups": 32,
        "norm_eps": 1e-5,
        "resnet_time_scale_shift": "scale_shift" if layout.scale_shift else "default",
        "class_embed_type": None,
        "num_class_embeds": layout.num_class_embeds,
    }


def expected_shapes(layout: Layout) -> dict[str, tuple[int, ...]]:
    """Every tensor, by its ADM name, that a checkpoint of this layout must hold, and its shape."""
    widths = [width for width, attends in zip(layout.widths, layout.attention, strict=True) if attends]
    config = unet_config(layout, image_size=8, head_channels=math.gcd(*widths, layout.widths[-1]))
    theirs = {name: tuple(tensor.shape) for name, tensor in build_on_meta(UNet2DModel, config).state_dict().items()}
    shapes: dict[str, tuple[int, ...]] = {}
    for adm, diffusers in parameter_names(layout):
        if ".to_qkv." in diffusers:
            rows, *columns = theirs[diffusers.replace("to_qkv", "to_q")]
            shapes[adm] = (3 * rows, *columns, 1) if columns else (3 * rows,)
        elif diffusers in theirs:  # not every residual block has a skip convolution, nor every U-Net labels
            shape = theirs[diffusers]
            shapes[adm] = (*shape, 1) if diffusers.endswith("to_out.0.weight") else shape
    return shapes


def rename(
    tensors: Mapping[str, Tensor], layout: Layout, *, legacy_heads: Callable[[int], int] | None
) -> dict[str, Tensor]:
    """Rename a checkpoint's tensors to diffusers' names, in fp32, each with memory of its own.

    Attention's joint query-key-value projection is taken apart: the new order holds all queries, then all keys, then
    all values; the legacy order holds query, key and value of each head in turn.

    Args:
        tensors: By ADM name; exactly those of `expected_shapes`.
        layout: The architecture.
        legacy_heads: The number of heads at a width, for the legacy attention order; None for the new order.
    """
    renamed: dict[str, Tensor] = {}
    for adm, diffusers in parameter_names(layout):
        if adm not in tensors:
            continue
        tensor = tensors[adm].float()
        if ".to_qkv." in diffusers:
            for part, rows in zip(("to_q", "to_k", "to_v"), _split_qkv(tensor, legacy_heads), strict=True):
                renamed[diffusers.replace("to_qkv", part)] = rows.clone()
        else:
            renamed[diffusers] = tensor.squeeze(-1) if diffusers.endswith("to_out.0.weight") else tensor
    return renamed


def parameter_names(layout: Layout) -> Iterator[tuple[str, str]]:
    """Pairs of a parameter's name in ADM and in diffusers; joint projections end in `to_qkv` on the right."""
    for adm, diffusers in _module_names(layout):
        yield f"{adm}.weight", f"{diffusers}.weight"
        if adm != "label_emb":
            yield f"{adm}.bias", f"{diffusers}.bias"


def _module_names(layout: Layout) -> Iterator[tuple[str, str]]:
    yield from _ENDS.items()
    size = layout.num_res_blocks + 1
    levels = len(layout.widths)
    for level, attends in enumerate(layout.attention):
        for block in range(layout.num_res_blocks):
            yield from _block(
                f"input_blocks.{1 + level * size + block}", f"down_blocks.{level}", block=block, attends=attends
            )
        if level < levels - 1:
            adm, diffusers = f"input_blocks.{(level + 1) * size}.0", f"down_blocks.{level}.downsamplers.0"
            yield from _resampler(adm, diffusers, layout=layout, convolution="op")
    yield from _inside("middle_block.0", "mid_block.resnets.0", _RESIDUAL)
    yield from _inside("middle_block.1", "mid_block.attentions.0", _ATTENTION)
    yield from _inside("middle_block.2", "mid_block.resnets.1", _RESIDUAL)
    for up, attends in enumerate(reversed(layout.attention)):
        for block in range(size):
            yield from _block(f"output_blocks.{up * size + block}", f"up_blocks.{up}", block=block, attends=attends)
        if up < levels - 1:
            adm, diffusers = f"output_blocks.{(up + 1) * size - 1}.{1 + attends}", f"up_blocks.{up}.upsamplers.0"
            yield from _resampler(adm, diffusers, layout=layout, convolution="conv")


def _block(adm: str, diffusers: str, *, block: int, attends: bool) -> Iterator[tuple[str, str]]:
    yield from _inside(f"{adm}.0", f"{diffusers}.resnets.{block}", _RESIDUAL)
    if attends:
        yield from _inside(f"{adm}.1", f"{diffusers}.attentions.{block}", _ATTENTION)


def _resampler(adm: str, diffusers: str, *, layout: Layout, convolution: str) -> Iterator[tuple[str, str]]:
    inside = _RESIDUAL if layout.resblock_updown else {convolution: "conv"}
    yield from _inside(adm, diffusers, inside)


def _inside(adm: str, diffusers: str, names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for ours, theirs in names.items():
        yield f"{adm}.{ours}", f"{diffusers}.{theirs}"


def _split_qkv(tensor: Tensor, legacy_heads: Callable[[int], int] | None) -> tuple[Tensor, ...]:
    rows = tensor.squeeze(-1) if tensor.ndim == 3 else tensor  # (3C, C) or (3C,)
    if legacy_heads is None:
        return rows.chunk(3)
    width = rows.shape[0] // 3
    heads = legacy_heads(width)
    by_head = rows.reshape(heads, 3, width // heads, *rows.shape[1:])  # (H, 3, C / H, ...)
    return tuple(part.reshape(width, *rows.shape[1:]) for part in by_head.unbind(1))


def _numbers(shapes: Shapes, pattern: str) -> set[int]:
    return {int(match[1]) for name in shapes if (match := re.match(pattern, name))}


def _size(shapes: Shapes, name: str, *, dim: int) -> int:
    shape = shapes.get(name)
    if shape is None or len(shape) <= dim:
        raise BackboneError(f"has no usable tensor {name}")
    return shape[dim]
