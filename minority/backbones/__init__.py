"""Pretrained diffusion models, whatever form they come in, each reduced to the denoiser contract.

Weights are read as safetensors or with `weights_only=True`, so nothing in a file is ever run, and nothing is downloaded
that was not asked for.
"""

from minority.backbones.adm import convert, load_adm
from minority.backbones.adm_flags import PRESETS, AdmFlags
from minority.backbones.backbone import Backbone, BackboneError
from minority.backbones.folder import load_folder, save_folder
from minority.backbones.loading import load_backbone
from minority.backbones.own_model import OwnModel, entry_point
from minority.backbones.unet import UNetDenoiser, UNetSettings

__all__ = [
    "PRESETS",
    "AdmFlags",
    "Backbone",
    "BackboneError",
    "OwnModel",
    "UNetDenoiser",
    "UNetSettings",
    "convert",
    "entry_point",
    "load_adm",
    "load_backbone",
    "load_folder",
    "save_folder",
]
