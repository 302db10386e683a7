"""Pretrained diffusion models, whatever form they come in, each reduced to the denoiser contract.

`load_backbone` decides by the path: a folder is a diffusers pipeline, a file an ADM / guided-diffusion checkpoint.
Weights are read as safetensors or with `weights_only=True`; nothing in a file is ever run, nothing is downloaded.
"""

from pathlib import Path

from minority.backbones.adm import convert, load_adm
from minority.backbones.adm_flags import PRESETS, AdmFlags
from minority.backbones.backbone import Backbone, BackboneError
from minority.backbones.folder import load_folder, save_folder
from minority.backbones.unet import UNetDenoiser, UNetSettings

__all__ = [
    "PRESETS",
    "AdmFlags",
    "Backbone",
    "BackboneError",
    "UNetDenoiser",
    "UNetSettings",
    "convert",
    "load_adm",
    "load_backbone",
    "load_folder",
    "save_folder",
]


def load_backbone(source: str | Path, **flags: object) -> Backbone:
    """Load a pretrained model from disk.

    Args:
        source: A diffusers folder, or an ADM checkpoint (`.pt`).
        **flags: For an ADM checkpoint only: `preset="celeba64"` and fields of `AdmFlags`.

    Returns:
        The backbone on the CPU.

    Raises:
        BackboneError: In one line, the file, what is wrong with it, and the way out.
    """
    path = Path(source)
    if path.is_dir():
        if flags:
            raise BackboneError(
                f"{path} is a diffusers folder, which brings its own settings; leave out {', '.join(flags)}."
            )
        return load_folder(path)
    if not path.exists():
        raise BackboneError(f"{path} does not exist; give the path of a diffusers folder or an ADM checkpoint (.pt).")
    return load_adm(path, **flags)  # type: ignore[arg-type]
