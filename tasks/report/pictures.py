"""Which images the report shows, and the small PNG mosaics that show them.

Only keys are chosen here, from the metadata; the report then loads all chosen images in one call and never decodes
the rest. Choices are made by rule (spread evenly, or the closest first), so that a run cannot show its best side.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image

from tasks.report.findings import SAMPLERS, drawn_by, is_good, passes

NUM_BANDS = 8
IMAGES_A_BAND = 16
NUM_NEIGHBOUR_PAIRS = 24
IMAGES_A_REASON = 16
NUM_SEED_PAIRS = 16
LARGEST_SIDE = 96  # pixels; larger images are reduced for the report


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Images shown together.

    Attributes:
        title: What they have in common.
        note: A line of figures below the title.
        keys: The images, in order.
    """

    title: str
    note: str
    keys: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class NeighbourPair:
    """A kept sample and the training image nearest to it, with their distance in feature space."""

    label: str
    key: str
    nearest_key: str
    distance: float


@dataclass(frozen=True, kw_only=True)
class SeedPair:
    """The samples that every sampler made of one label and seed; keys by sampler.

    `number` is the seed, or the sample index where all samples of a run share its seed.
    """

    label: str
    number: int
    keys: Mapping[str, str]


def score_bands(metadata: pd.DataFrame) -> list[Panel]:
    """Minority candidates by percentile of their minority score, lowest band first; a NaN score is in no band."""
    drawn = drawn_by(metadata, "minority")
    scores = drawn["minority_score"].astype("float64")
    drawn = drawn[np.isfinite(scores)].sort_values(["minority_score", "key"], kind="stable")
    panels = []
    for band in range(NUM_BANDS):
        rows = drawn.iloc[band * len(drawn) // NUM_BANDS : (band + 1) * len(drawn) // NUM_BANDS]
        if rows.empty:
            continue
        low, high = (100 * edge / NUM_BANDS for edge in (band, band + 1))
        ends = rows["minority_score"].iloc[[0, -1]]
        panels.append(
            Panel(
                title=f"{low:g}-{high:g} %",
                note=f"score {ends.iloc[0]:.3g} to {ends.iloc[1]:.3g}, {100 * is_good(rows).mean():.0f} % good",
                keys=_keys(_spread(rows, IMAGES_A_BAND)),
            )
        )
    return panels


def neighbour_pairs(metadata: pd.DataFrame) -> list[NeighbourPair]:
    """Kept samples beside their nearest training image: half the closest ones, half spread over the rest.

    Samples whose nearest image is not in the metadata are left out.
    """
    real = metadata[metadata["source"] == "real"].drop_duplicates("source_id").set_index("source_id")["key"]
    drawn = drawn_by(metadata, "minority")
    drawn = drawn[passes(drawn, "kept")]
    drawn = drawn[drawn["nearest_source_id"].isin(real.index)]
    drawn = drawn.sort_values(["nearest_distance", "key"], kind="stable")
    half = NUM_NEIGHBOUR_PAIRS // 2
    chosen = pd.concat([drawn.iloc[:half], _spread(drawn.iloc[half:], NUM_NEIGHBOUR_PAIRS - half)])
    return [
        NeighbourPair(
            label=str(row["label_name"]),
            key=str(row["key"]),
            nearest_key=str(real[row["nearest_source_id"]]),
            distance=float(row["nearest_distance"]),
        )
        for row in chosen.to_dict("records")
    ]


def rejected_panels(metadata: pd.DataFrame) -> list[Panel]:
    """Minority candidates that were not kept, a panel for every reason, the commonest reason first."""
    drawn = drawn_by(metadata, "minority")
    refused = drawn[~passes(drawn, "kept")]
    counts = refused["reason"].value_counts().sort_index().sort_values(ascending=False, kind="stable")
    return [
        Panel(
            title=str(reason).replace("_", " "),
            note=f"{count} candidates",
            keys=_keys(_spread(refused[refused["reason"] == reason], IMAGES_A_REASON)),
        )
        for reason, count in counts.items()
    ]


def seed_pairs(metadata: pd.DataFrame) -> list[SeedPair]:
    """The first seeds of every label, label by label in turn, as every sampler drew them.

    Where one sampler has no candidates, the pairs hold the other's alone.
    """
    drawn = {sampler: drawn_by(metadata, sampler, first_round=True) for sampler in SAMPLERS}
    drawn = {sampler: rows for sampler, rows in drawn.items() if not rows.empty}
    if not drawn:
        return []
    identity = ["label", "seed"]
    if any(rows.duplicated(identity).any() for rows in drawn.values()):
        identity.append("sample_index")  # the seed is the run's; the index tells its samples apart
    keys = [rows.set_index(identity)["key"].rename(sampler) for sampler, rows in drawn.items()]
    paired = pd.concat(keys, axis=1, join="inner").sort_index(kind="stable")
    rank = paired.groupby(level="label").cumcount()
    paired = paired.assign(turn=rank).sort_values("turn", kind="stable").iloc[:NUM_SEED_PAIRS].sort_index(kind="stable")
    names = metadata.drop_duplicates("label").set_index("label")["label_name"]
    return [
        SeedPair(
            label=str(names[row["label"]]),
            number=int(row[identity[-1]]),
            keys={sampler: str(row[sampler]) for sampler in drawn},
        )
        for row in paired.reset_index().to_dict("records")
    ]


def mosaic(images: Sequence[np.ndarray], *, columns: int) -> str:
    """A data URI of one PNG with the images in rows, one pixel apart, transparent where there is none.

    Args:
        images: At least one (H, W, C) uint8 image, C = 1 or 3, all of one shape.
        columns: Images in a row.
    """
    tiles = [reduced(image) for image in images]
    height, width = tiles[0].shape[:2]
    rows = -(-len(tiles) // columns)
    canvas = np.zeros((rows * (height + 1) - 1, columns * (width + 1) - 1, 4), dtype=np.uint8)
    for position, tile in enumerate(tiles):
        top, left = (position // columns) * (height + 1), (position % columns) * (width + 1)
        canvas[top : top + height, left : left + width, :3] = tile
        canvas[top : top + height, left : left + width, 3] = 255
    png = io.BytesIO()
    Image.fromarray(canvas).save(png, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode("ascii")


def reduced(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: the image in colour, its longer side at most 96 pixels."""
    picture = Image.fromarray(np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image)
    if max(picture.size) > LARGEST_SIDE:
        picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    return np.asarray(picture)


def _keys(rows: pd.DataFrame) -> tuple[str, ...]:
    return tuple(rows["key"].astype(str))


def _spread(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """At most `count` rows, evenly spread, first and last included."""
    if len(rows) <= count:
        return rows
    return rows.iloc[np.linspace(0, len(rows) - 1, count).round().astype(int)]
