"""Models by hub id (owner/name): from the hub's cache on this machine, fetched only where that was allowed."""

import logging
import re
from pathlib import Path

from huggingface_hub import constants, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from minority.backbones.backbone import Backbone, BackboneError
from minority.backbones.folder import load_folder
from minority.backbones.text.folder import TextToImage

_WEIGHTS = "diffusion_pytorch_model"
_TEXT = ("tokenizer*/*.txt", "tokenizer*/*.model", "text_encoder*/*.safetensors")  # vocabularies and encoders
_FILE_ENDS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".npz", ".yaml", ".yml", ".json")


def is_hub_id(text: str) -> bool:
    """Whether a text is laid out as owner/name, and does not end as a file of weights does."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", text) is not None and not text.endswith(_FILE_ENDS)


def load_from_hub(
    repo_id: str,
    *,
    revision: str | None = None,
    download: bool = False,
    cache: Path | None = None,
    text: TextToImage | None = None,
) -> Backbone:
    """Load a diffusers pipeline by its hub id.

    Args:
        repo_id: owner/name.
        revision: Branch, tag or commit; None is the main branch as it was cached.
        download: Whether what is missing may be fetched.
        text: Of a text-to-image pipeline only: its prompts, and what else it needs.
        cache: The hub's cache; None is its own ($HF_HUB_CACHE, or hub in $HF_HOME).

    Raises:
        BackboneError: Where it is not in the cache and must not or cannot be fetched, or is no backbone.
    """
    folder = (
        _fetch(repo_id, revision, cache, with_text=text is not None)
        if download
        else _in_cache(repo_id, revision, cache)
    )
    if folder is None:
        raise BackboneError(
            f"{repo_id} is neither a folder nor a file here, and as a hub id it is not in the hub's cache "
            f"({cache or constants.HF_HUB_CACHE}); correct the path, or fetch the model: `hf download {repo_id}` where "
            "there is a network, or set download: true."
        )
    try:
        return load_folder(folder, name=repo_id, text=text)
    except BackboneError as error:
        raise BackboneError(
            f"{repo_id}, as it lies in the hub's cache: {error} Where files are missing, `hf download {repo_id}` "
            "fetches them."
        ) from error


def _in_cache(repo_id: str, revision: str | None, cache: Path | None) -> Path | None:
    for name in ("model_index.json", "config.json"):
        cached = try_to_load_from_cache(repo_id, name, revision=revision, cache_dir=cache)
        if isinstance(cached, str):
            return Path(cached).parent
    return None


def _fetch(repo_id: str, revision: str | None, cache: Path | None, *, with_text: bool) -> Path:
    logging.getLogger(__name__).warning("looking for %s on the hub, and fetching what is missing", repo_id)
    try:
        for weights in ([f"*{_WEIGHTS}.safetensors", f"*{_WEIGHTS}-*.safetensors"], [f"*{_WEIGHTS}.bin"]):
            patterns = ["*.json", "*.md", *weights, *(_TEXT if with_text else ())]
            folder = Path(snapshot_download(repo_id, revision=revision, cache_dir=cache, allow_patterns=patterns))
            if any(file for pattern in weights for file in folder.rglob(pattern)):
                break
    except (OSError, HFValidationError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise BackboneError(
            f"{repo_id} cannot be fetched from the hub ({reason}); look at its name and your network, or copy the "
            "model here and give its path."
        ) from error
    return folder
