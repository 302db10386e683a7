"""One door to every kind of backbone: its name tells which."""

from pathlib import Path

from minority.backbones.adm import load_adm
from minority.backbones.backbone import Backbone, BackboneError
from minority.backbones.folder import load_folder
from minority.backbones.hub import is_hub_id, load_from_hub
from minority.backbones.own_model import is_entry_point, load_own_model
from minority.backbones.text.folder import TextToImage


def load_backbone(
    source: str | Path,
    *,
    revision: str | None = None,
    download: bool = False,
    text: TextToImage | None = None,
    **flags: object,
) -> Backbone:
    """Load a pretrained model.

    Args:
        source: A diffusers folder, an ADM checkpoint (`.pt`), a hub id (owner/name), or an entry point of one's own
            (package.module:function).
        revision: Of a hub id only: branch, tag or commit.
        download: Of a hub id only: whether it may be fetched where it is not in the hub's cache.
        text: Of a text-to-image pipeline only: its prompts, and what else it needs.
        **flags: Of an ADM checkpoint only: `preset="celeba64"` and fields of `AdmFlags`.

    Returns:
        The backbone on the CPU.

    Raises:
        BackboneError: In one line, what is wrong with it and the way out.
    """
    path, name = Path(source), str(source)
    if path.is_file() and text is not None:
        raise BackboneError(
            f"{path} is a single file; text-to-image models are read as diffusers folders; make one: "
            "StableDiffusionPipeline.from_single_file(...).save_pretrained(folder)."
        )
    if path.is_file():
        return load_adm(path, **flags)  # type: ignore[arg-type]
    if flags and (path.is_dir() or is_entry_point(name) or is_hub_id(name)):
        raise BackboneError(f"{name} is no ADM checkpoint and brings its own settings; leave out {', '.join(flags)}.")
    if path.is_dir():
        return load_folder(path, text=text)
    if is_hub_id(name):
        return load_from_hub(name, revision=revision, download=download, text=text)
    if text is not None:
        raise BackboneError(f"{name} is no text-to-image pipeline, so it takes no prompts; leave backbone.prompts out.")
    if is_entry_point(name):
        return load_own_model(name)
    raise BackboneError(
        f"{name} does not exist; give the path of a diffusers folder or an ADM checkpoint (.pt), a hub id (owner/name) "
        "or an entry point (package.module:function)."
    )
