"""A backbone on disk is loaded, and its checksum computed, once a process as long as its files stay as they are."""

import json
import threading
from functools import lru_cache
from pathlib import Path

from minority.backbones import Backbone, load_backbone
from minority.backbones.text.folder import TextToImage
from minority.weights import FileState, file_state, is_settled
from tasks.config.paths import project_path
from tasks.config.sections import StageConfig

_loading = threading.Lock()


def load_stage(config: StageConfig, *, text: TextToImage | None = None) -> Backbone:
    """Load one pretrained model, or return it from this process's memory where it comes from files on disk.

    Networks of one's own and models of the hub are loaded anew every time: what they are read from is not known here.

    Args:
        config: Its path, revision and flags.
        text: The prompts of a text-to-image pipeline; it is loaded anew every time.

    Raises:
        BackboneError: In one line, what is wrong with it.
    """
    path = project_path(config.path)
    files = _files(path)
    with _loading:
        if text is None and files and all(is_settled(file) for file in files):
            return _load_once(str(path), files, json.dumps(config.model_dump(mode="json")["flags"]))
    source = path if path.exists() else config.path
    return load_backbone(source, revision=config.revision, download=config.download, text=text, **config.flags)


@lru_cache(maxsize=2)  # both stages of one backbone
def _load_once(path: str, _files: tuple[FileState, ...], flags: str) -> Backbone:
    return load_backbone(path, **json.loads(flags))


def _files(path: Path) -> tuple[FileState, ...]:
    """The state of every file that a backbone on disk is read from; empty where it is named in another way."""
    if path.is_file():
        return (file_state(path),)
    return tuple(file_state(file) for file in sorted(path.rglob("*")) if file.is_file()) if path.is_dir() else ()
