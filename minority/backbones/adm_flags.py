"""How ADM / guided-diffusion checkpoints were trained: their flags, and the presets of the published ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from minority.backbones.backbone import BackboneError

_DEFAULT_MULTIPLIERS = {512: (0.5, 1, 1, 2, 2, 4, 4), 256: (1, 1, 2, 2, 4, 4), 128: (1, 1, 2, 3, 4), 64: (1, 2, 3, 4)}
_PUBLISHED_DEFAULTS = {
    "image_size": "64",
    "num_channels": "128",
    "num_res_blocks": "2",
    "num_heads": "4",
    "num_heads_upsample": "-1",
    "num_head_channels": "-1",
    "attention_resolutions": "16,8",
    "channel_mult": "",
    "dropout": "0.0",
    "class_cond": "False",
    "use_scale_shift_norm": "True",
    "resblock_updown": "False",
    "use_new_attention_order": "False",
    "learn_sigma": "False",
    "diffusion_steps": "1000",
    "noise_schedule": "linear",
    "predict_xstart": "False",
    "rescale_timesteps": "False",
}


@dataclass(frozen=True, kw_only=True)
class AdmFlags:
    """How an ADM checkpoint was trained, in the names of its own command line.

    The first group must be given; the tensors do not show it. Exactly one of num_heads and num_head_channels is
    needed. Of the last group, whatever is None is read from the tensors, and whatever is given must agree with them.

    Attributes:
        image_size: Pixels on a side.
        noise_schedule: linear or cosine.
        use_new_attention_order: Whether attention stores all queries, then all keys, then all values (else by head).
        num_heads: Attention heads at every width.
        num_head_channels: Channels of an attention head at every width.
        diffusion_steps: Trained timesteps.
        rescale_timesteps: Whether the network sees timesteps scaled to 0 ... 1000.
        predict_xstart: Whether it predicts the clean image instead of the noise.
        dropout: Share dropped in training; without effect on sampling.
        num_channels: Base width.
        channel_mult: Width of each level in multiples of the base width; must start with 1.
        num_res_blocks: Residual blocks a level.
        attention_resolutions: Image sizes at which there is attention.
        class_cond: Whether it takes labels; how many, the tensors tell.
        use_scale_shift_norm: Whether the time embedding scales and shifts.
        resblock_updown: Whether residual blocks change the resolution.
        learn_sigma: Whether it learns its variance.
        low_resolution: Whether it is an upsampler, whose input ends with a low-resolution image.
        image_channels: Channels of an image.
    """

    image_size: int
    noise_schedule: Literal["linear", "cosine"]
    use_new_attention_order: bool
    num_heads: int | None = None
    num_head_channels: int | None = None

    diffusion_steps: int = 1000
    rescale_timesteps: bool = False
    predict_xstart: bool = False
    dropout: float = 0.0

    num_channels: int | None = None
    channel_mult: tuple[float, ...] | None = None
    num_res_blocks: int | None = None
    attention_resolutions: tuple[int, ...] | None = None
    class_cond: bool | None = None
    use_scale_shift_norm: bool | None = None
    resblock_updown: bool | None = None
    learn_sigma: bool | None = None
    low_resolution: bool | None = None
    image_channels: int | None = None

    def __post_init__(self) -> None:
        if (self.num_heads is None) == (self.num_head_channels is None):
            raise BackboneError(
                "an ADM checkpoint needs exactly one of num_heads and num_head_channels, got "
                f"{self.num_heads} and {self.num_head_channels}."
            )
        if self.noise_schedule not in ("linear", "cosine"):
            raise BackboneError(f"noise_schedule must be linear or cosine, got {self.noise_schedule!r}.")
        if self.channel_mult is not None and self.channel_mult[0] != 1:
            raise BackboneError(f"channel_mult must start with 1 to fit diffusers' U-Net, got {self.channel_mult}.")

    @classmethod
    def from_command_line(cls, flags: Mapping[str, object]) -> "AdmFlags":
        """Take the flags as guided-diffusion's own command line has them.

        Args:
            flags: By name, typed or as text: "32,16,8", "True", -1 heads, "" multipliers. What has no effect on a
                finished model is ignored; what is left out has the published default.

        Raises:
            BackboneError: Where heads differ on the way up, or no multipliers are known for the size.
        """
        texts = _PUBLISHED_DEFAULTS | {name: str(value) for name, value in flags.items()}
        size = int(texts.get("large_size", texts["image_size"]))
        head_channels = int(texts["num_head_channels"])
        if head_channels == -1 and texts["num_heads_upsample"] not in ("-1", texts["num_heads"]):
            raise BackboneError("num_heads_upsample must be -1 or num_heads; other heads on the way up do not fit.")
        if not texts["channel_mult"] and size not in _DEFAULT_MULTIPLIERS:
            raise BackboneError(f"channel_mult has no default for image_size {size}; give it.")
        mult = [float(part) for part in texts["channel_mult"].split(",") if part] or _DEFAULT_MULTIPLIERS[size]
        return cls(
            image_size=size,
            noise_schedule="cosine" if texts["noise_schedule"] == "cosine" else "linear",
            use_new_attention_order=texts["use_new_attention_order"] == "True",
            num_heads=int(texts["num_heads"]) if head_channels == -1 else None,
            num_head_channels=None if head_channels == -1 else head_channels,
            diffusion_steps=int(texts["diffusion_steps"]),
            rescale_timesteps=texts["rescale_timesteps"] == "True",
            predict_xstart=texts["predict_xstart"] == "True",
            dropout=float(texts["dropout"]),
            num_channels=int(texts["num_channels"]),
            channel_mult=tuple(mult),
            num_res_blocks=int(texts["num_res_blocks"]),
            attention_resolutions=tuple(int(part) for part in texts["attention_resolutions"].split(",")),
            class_cond=texts["class_cond"] == "True",
            use_scale_shift_norm=texts["use_scale_shift_norm"] == "True",
            resblock_updown=texts["resblock_updown"] == "True",
            learn_sigma=texts["learn_sigma"] == "True",
            low_resolution="large_size" in texts,
            image_channels=3,
        )

    def heads(self, width: int) -> int:
        """Attention heads at a width of so many channels."""
        count = self.num_heads if self.num_heads is not None else width // (self.num_head_channels or width)
        if count < 1 or width % count or (self.num_head_channels and width % self.num_head_channels):
            rule = (
                f"num_heads = {self.num_heads}" if self.num_heads else f"num_head_channels = {self.num_head_channels}"
            )
            raise BackboneError(f"{rule} does not divide the {width} channels of an attention layer.")
        return count


def read_flag(name: str, value: object, *, source: str) -> Any:
    """A flag as `AdmFlags` takes it; lists of numbers may be texts such as "32,16,8".

    Args:
        name: A field of AdmFlags.
        value: What a command line or a config gives, text or not.
        source: What messages call the checkpoint.

    Raises:
        BackboneError: Where the value is of another type than the field.
    """
    if value is None:
        return None
    hint = get_type_hints(AdmFlags)[name]
    kind = str if get_origin(hint) is Literal else (*get_args(hint), hint)[0]  # of "int | None" the int
    if get_origin(kind) is tuple:
        number = get_args(kind)[0]
        parts = value.split(",") if isinstance(value, str) else value if isinstance(value, Sequence) else [value]
        try:
            return tuple(number(part) for part in parts)
        except (TypeError, ValueError) as error:
            raise BackboneError(f"{source}: flag {name} takes numbers such as 32,16,8, got {value!r}.") from error
    fits = isinstance(value, (int, float) if kind is float else kind) and isinstance(value, bool) == (kind is bool)
    if not fits:
        raise BackboneError(f"{source}: flag {name} takes a value of type {kind.__name__}, got {value!r}.")
    return value


_ADM_64 = AdmFlags(
    image_size=64,
    noise_schedule="cosine",
    use_new_attention_order=True,
    num_head_channels=64,
    dropout=0.1,
    num_channels=192,
    channel_mult=_DEFAULT_MULTIPLIERS[64],
    num_res_blocks=3,
    attention_resolutions=(32, 16, 8),
    class_cond=False,
    use_scale_shift_norm=True,
    resblock_updown=True,
    learn_sigma=True,
    low_resolution=False,
    image_channels=3,
)
_ADM_256 = replace(
    _ADM_64,
    image_size=256,
    noise_schedule="linear",
    use_new_attention_order=False,
    num_channels=256,
    channel_mult=_DEFAULT_MULTIPLIERS[256],
    num_res_blocks=2,
)

PRESETS: dict[str, AdmFlags] = {
    # CelebA of Um & Ye (2024); the others of Dhariwal & Nichol (2021). 295 / 553 / 296 / 312 M parameters.
    "celeba64": _ADM_64,
    "lsun_bedroom256": _ADM_256,
    "imagenet64": replace(_ADM_64, class_cond=True),
    "upsampler64_256": replace(
        _ADM_256,
        num_channels=192,
        num_heads=4,
        num_head_channels=None,
        class_cond=True,
        low_resolution=True,
        dropout=0.0,
    ),
}
