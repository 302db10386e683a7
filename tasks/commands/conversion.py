"""ADM checkpoints as diffusers folders, for whoever wants to use them elsewhere."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minority.backbones import UNetDenoiser, save_folder
from tasks.config.paths import project_path
from tasks.errors import InputError
from tasks.inputs.workspace import open_named_backbone


def convert_to_folder(checkpoint: str, out: Path, *, flags: Mapping[str, Any]) -> Path:
    """Save an ADM checkpoint as a diffusers folder, with a card that names its source.

    Args:
        checkpoint: Its path.
        out: The folder to make; another backbone that stands there is replaced, anything else is left alone.
        flags: ADM flags.

    Raises:
        InputError: The checkpoint cannot be read, is none, or `out` is something else already.
    """
    if not project_path(checkpoint).is_file():
        raise InputError(f"{checkpoint} is no file; give the path of an ADM checkpoint (.pt).")
    backbone = open_named_backbone(checkpoint, flags)
    denoiser = backbone.denoiser
    if not isinstance(denoiser, UNetDenoiser) or backbone.codec is not None:
        raise InputError(f"{checkpoint} has several parts, which one folder cannot hold; convert each stage alone.")
    card = f"# {backbone.name}\n\nConverted from an ADM checkpoint of SHA-256 {backbone.sha256}.\n"
    try:
        return save_folder(out, denoiser.unet, schedule=backbone.schedule, settings=denoiser.settings, card=card)
    except ValueError as error:
        raise InputError(str(error)) from error
