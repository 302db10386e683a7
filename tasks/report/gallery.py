"""The gallery: a page that shows every candidate of a run, kept or rejected, beside its nearest real image.

`gallery.html` holds all data and its own script and style, which its content security policy names by their hashes;
the thumbnails lie beside it in sheets. It works from a folder as from an object store, without a server.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from datasets.runs.records import METADATA_SCHEMA
from datasets.storage.canonical import sha256_hex
from datasets.storage.store import Store
from tasks.augment.decisions import FORMAT
from tasks.report.page_parts import content_hash, page_part
from tasks.report.scores import SCORE_NAMES
from tasks.report.sprites import SpriteSheets

GALLERY_FILE, SHEETS_FOLDER = "gallery.html", "gallery"
#: Candidates on a page at most; of more, all kept ones that fit, then rejected ones, evenly spread.
MOST_SHOWN = 100_000
_NO_SCORES = {"evaluations", "edited_fraction"}
_HERE = Path(__file__).parent
_PARTS = ("gallery.py", "gallery.js", "gallery.css", "gallery.html.j2", "sprites.py")
#: Bytes at the page's beginning in which it tells what it was made of.
_HEAD = 4096


@dataclass(frozen=True, kw_only=True)
class GalleryInputs:
    """What a gallery is made of.

    Attributes:
        dataset: Name of the dataset.
        run_id: Name of the run.
        metadata: One row a candidate and a real image, columns of datasets.runs.records.METADATA_SCHEMA, unit by unit.
        read_unit: Gives a unit's images by key: its name -> key -> (H, W, C) uint8, C = 1 or 3.
        report: The report's file beside the page; "" where there is none yet.
    """

    dataset: str
    run_id: str
    metadata: pd.DataFrame
    read_unit: Callable[[str], Mapping[str, NDArray[np.uint8]]]
    report: str = ""


def write_gallery(inputs: GalleryInputs, store: Store, *, folder: str) -> str:
    """Write the sheets, then the page. Images are read unit by unit and are never all in memory.

    A page that lies there and was made of the same by the same program is left alone.

    Args:
        inputs: What it is made of.
        store: The store of the run.
        folder: Where in it the page goes, e.g. "report".

    Returns:
        The page's URL.

    Raises:
        ValueError: A unit is missing or damaged.
        StoreError: The store cannot be written.
    """
    path, made_of = f"{folder}/{GALLERY_FILE}", _made_of(inputs)
    if not (store.exists(path) and f'content="{made_of}"'.encode() in store.read(path)[:_HEAD]):
        _write_files(inputs, lambda name, data: store.write(f"{folder}/{name}", data), made_of=made_of)
    return store.url(path)


def _write_files(inputs: GalleryInputs, write: Callable[[str, bytes], None], *, made_of: str) -> None:
    candidates, left_out = _shown(inputs.metadata)
    sheets = SpriteSheets(f"{SHEETS_FOLDER}/candidates", write)
    for image in _images(candidates, inputs):
        sheets.add(image)
    real, nearest = _nearest(candidates, inputs, write)
    content = {
        "format": FORMAT,
        "dataset": inputs.dataset,
        "run_id": inputs.run_id,
        "digest": _digest(candidates),
        "sheets": {"candidates": sheets.close(), "real": real},
        "scores": _scores(candidates),
        **_columns(candidates, nearest),
    }
    style, script = (page_part(name) for name in ("gallery.css", "gallery.js"))
    page = _environment().get_template("gallery.html.j2")
    html = page.render(
        dataset=inputs.dataset,
        run_id=inputs.run_id,
        report=inputs.report,
        made_of=made_of,
        shown=len(candidates),
        left_out=left_out,
        is_small=sheets.is_small,
        style=Markup(style),
        script=Markup(script),
        style_hash=content_hash(style),
        script_hash=content_hash(script),
        data=Markup(_as_data(content)),
    )
    write(GALLERY_FILE, html.encode("utf-8"))


def _shown(metadata: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The candidates that are shown, unit by unit, and how many are not."""
    candidates = metadata[metadata["sampler"] == "minority"]
    if len(candidates) <= MOST_SHOWN:
        return candidates, 0
    kept, rejected = (np.flatnonzero(candidates["kept"] == word) for word in (True, False))
    kept = _spread(kept, MOST_SHOWN)
    chosen = np.sort(np.concatenate([kept, _spread(rejected, MOST_SHOWN - len(kept))]))
    return candidates.iloc[chosen], len(candidates) - len(chosen)


def _spread(positions: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    if len(positions) <= count:
        return positions
    return positions[np.linspace(0, len(positions) - 1, count).round().astype(int)] if count else positions[:0]


def _images(rows: pd.DataFrame, inputs: GalleryInputs) -> Iterator[NDArray[np.uint8]]:
    """The images of rows in their order; each unit is read once where its rows lie together."""
    unit: str | None = None
    images: Mapping[str, NDArray[np.uint8]] = {}
    for key, name in zip(rows["key"], rows["unit"], strict=True):
        if name != unit:
            unit, images = name, inputs.read_unit(name)
        yield images[key]


def _nearest(
    candidates: pd.DataFrame, inputs: GalleryInputs, write: Callable[[str, bytes], None]
) -> tuple[dict[str, object], dict[str, int]]:
    """Sheets of the real images that are nearest to a candidate, and source id -> number on them."""
    sheets = SpriteSheets(f"{SHEETS_FOLDER}/real", write)
    real = inputs.metadata[inputs.metadata["source"] == "real"]
    real = real[real["source_id"].isin(candidates["nearest_source_id"].unique())]
    number_of = {
        str(name): sheets.add(image) for name, image in zip(real["source_id"], _images(real, inputs), strict=True)
    }
    return sheets.close(), number_of


def _columns(candidates: pd.DataFrame, nearest: Mapping[str, int]) -> dict[str, object]:
    """Candidates column by column; texts that come again and again are numbers into lists."""
    kept = candidates["kept"].to_numpy(dtype=bool)
    groups = sorted(candidates["group"].unique())
    reasons = sorted(candidates.loc[~kept, "reason"].unique())
    place_of_group, place_of_reason = ({name: i for i, name in enumerate(names)} for names in (groups, reasons))
    ids = [None if pd.isna(name) else str(name) for name in candidates["nearest_source_id"]]
    return {
        "groups": groups,
        "reasons": reasons,
        "candidates": {
            "key": candidates["key"].tolist(),
            "group": candidates["group"].map(place_of_group).tolist(),
            "kept": kept.astype(int).tolist(),
            # Being kept is no reason for refusal.
            "reason": [place_of_reason.get(reason, -1) for reason in candidates["reason"].where(~kept, None)],
            "nearest": [nearest.get(name or "", -1) for name in ids],
            "nearest_id": ids,
        },
    }


def _scores(candidates: pd.DataFrame) -> dict[str, object]:
    """Every score that some candidate has, to four digits; null where it is missing or not finite."""
    scores: dict[str, object] = {}
    for field in METADATA_SCHEMA:
        if field.type != pa.float32() or field.name in _NO_SCORES:
            continue
        values = candidates[field.name].to_numpy(dtype=np.float64, na_value=np.nan)
        if np.isfinite(values).any():
            title = SCORE_NAMES.get(field.name, (field.name.replace("_", " ").capitalize(), ""))[0]
            rounded = [float(f"{value:.4g}") if np.isfinite(value) else None for value in values.tolist()]
            scores[field.name] = {"title": title, "values": rounded}
    return scores


def _made_of(inputs: GalleryInputs) -> str:
    """Digest of all that decides the page and its sheets: the rows, and this program's files."""
    rows = inputs.metadata.drop(columns=["random_projection", "shard"])
    digest = hashlib.sha256(pd.util.hash_pandas_object(rows, index=False).to_numpy().tobytes())
    for part in (inputs.dataset, inputs.run_id, inputs.report, *map(page_part, _PARTS)):
        digest.update(part.encode("utf-8"))
    return digest.hexdigest()


def _digest(candidates: pd.DataFrame) -> str:
    """Tells two galleries of one run apart, so that no marks go from one to the other."""
    lines = zip(candidates["key"], candidates["kept"], candidates["reason"], strict=True)
    return sha256_hex("\n".join(f"{key} {kept} {reason}" for key, kept, reason in lines).encode())[:16]


def _as_data(content: Mapping[str, object]) -> str:
    """JSON that no HTML parser takes for markup."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _environment() -> Environment:
    return Environment(loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined)
