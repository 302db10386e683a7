"""Exporting a run: one function a layout, and the folder that appears whole or not at all."""

import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from datasets.export.card import export_card
from datasets.export.coco import write_coco
from datasets.export.fiftyone_samples import write_fiftyone
from datasets.export.hf_parquet import write_hf_parquet
from datasets.export.imagefolder import write_imagefolder
from datasets.export.opened import OpenedRun, manifest_url, open_run_folder

#: What an export is called, and what writes it into an empty folder.
LAYOUTS: dict[str, Callable[[OpenedRun, Path], None]] = {
    "imagefolder": write_imagefolder,
    "hf-parquet": write_hf_parquet,
    "fiftyone": write_fiftyone,
    "coco": write_coco,
}
CARD_FILE = "README.md"


@dataclass(frozen=True)
class Exported:
    """What an export came to.

    Attributes:
        folder: Where it lies.
        manifest: URL of the run's manifest.
        images: Images by source.
    """

    folder: Path
    manifest: str
    images: dict[str, int]


def export_run(run: str, out: str, *, layout: str, store: str = "runs") -> Exported:
    """Export the published images of a run, each checked against its checksum.

    Args:
        run: Path or URL of a manifest.json or of its folder, or a dataset's name in the store.
        out: The folder of this machine to write, which must not be there yet. It appears when all is written.
        layout: One of LAYOUTS.
        store: Folder or URL of all datasets.

    Raises:
        FileNotFoundError: There is no such run.
        ValueError: The layout is unknown, the folder is there, or the run is damaged.
        OSError: The run cannot be read, or the folder cannot be written.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"there is no layout {layout!r} to export to; use {', '.join(LAYOUTS)}.")
    target = _require_new(out)
    url = manifest_url(run, store=store)
    opened = open_run_folder(url)
    with _new_folder(target) as folder:
        LAYOUTS[layout](opened, folder)
        (folder / CARD_FILE).write_text(export_card(opened, layout=layout), encoding="utf-8")
    return Exported(target, url, dict(sorted(Counter(opened.rows["source"].to_pylist()).items())))


def _require_new(out: str) -> Path:
    if "://" in out:
        raise ValueError(f"--out {out} is a URL; an export goes to a folder of this machine: copy it on from there.")
    target = Path(out).expanduser()
    if target.exists() or target.is_symlink():
        raise ValueError(f"{out} is there already, and an export never overwrites; name a folder that is not there.")
    return target


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """A folder beside the target that gets its name when the block ends, and goes where the block fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.parent / f".{target.name}.partial-{secrets.token_hex(4)}"
    partial.mkdir()
    try:
        yield partial
        _require_new(str(target))
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
