"""The one maker of tiny U-Nets with random weights, and of backbones and backbone folders around them."""

import torch
from diffusers import UNet2DModel

from minority.backbones import Backbone, UNetDenoiser, UNetSettings, save_folder
from minority.diffusion.schedule import NoiseSchedule


def tiny_unet(seed=0, *, side=8, channels=1, widths=(8,), attention=False, **further):
    """A UNet2DModel of a block a width; the same weights at every call, and torch's random state stays as it was.

    `attention` puts attention into the lowest block. `further`: arguments of UNet2DModel, over those made here.
    """
    plain = len(widths) - attention
    arguments = {
        "sample_size": side,
        "in_channels": channels,
        "out_channels": channels,
        "block_out_channels": widths,
        "down_block_types": ("DownBlock2D",) * plain + ("AttnDownBlock2D",) * attention,
        "up_block_types": ("AttnUpBlock2D",) * attention + ("UpBlock2D",) * plain,
        "layers_per_block": 1,
        "norm_num_groups": 4,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return UNet2DModel(**arguments | further)


def tiny_backbone(*, frozen=True, no_label=False):
    """A backbone with attention for 8x8 grey images of three classes.

    With `no_label` it knows one class more, which stands for none.
    """
    unet = tiny_unet(widths=(16, 16), attention=True, num_class_embeds=4 if no_label else 3)
    schedule = NoiseSchedule.cosine(1000)
    denoiser = UNetDenoiser(unet, schedule, settings=UNetSettings(num_classes=3)).eval().requires_grad_(not frozen)
    return Backbone("tiny", denoiser, schedule, image_shape=(1, 8, 8), num_classes=3, sha256="0" * 64)


def save_tiny_backbone(folder, *, side=8, channels=1, num_classes=10, label_dropout=False, seed=0):
    """A backbone folder: it draws noise, in a moment. Returns the folder's name."""
    unet = tiny_unet(
        seed,
        side=side,
        channels=channels,
        widths=(8, 16),
        num_class_embeds=num_classes + 1 if label_dropout else num_classes,  # the last one for no label
    )
    settings = UNetSettings(num_classes=num_classes)
    return str(save_folder(folder, unet, schedule=NoiseSchedule.cosine(100), settings=settings))
