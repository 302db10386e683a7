"""An export as Hugging Face lays out images in Parquet: `data/train-00000-of-00002.parquet`, images within."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from datasets.export.hf_features import with_features
from datasets.export.opened import ExportImage, OpenedRun

#: Rows that lie together in a file: readers take one such group at a time.
_ROWS_A_GROUP = 100
#: A file ends at the first full group beyond so many bytes of images.
_BYTES_A_FILE = 400 << 20
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write_hf_parquet(run: OpenedRun, folder: Path, *, bytes_a_file: int = _BYTES_A_FILE) -> None:
    """Write a run's images with their rows into an empty folder.

    Args:
        run: The run.
        folder: The empty folder.
        bytes_a_file: Bytes of images after which a new file begins.
    """
    data = folder / "data"
    data.mkdir()
    groups, done, files = _groups(run.images()), 0, 0
    group = next(groups)
    while group:
        written = 0
        name = data / f"{files:05d}.parquet"
        schema = _table(run, group, start=done).schema
        with pq.ParquetWriter(name, schema, compression="zstd") as writer:
            while group and written < bytes_a_file:
                writer.write_table(_table(run, group, start=done), row_group_size=_ROWS_A_GROUP)
                written += sum(len(image.data) for image in group)
                done += len(group)
                group = next(groups)
        files += 1
    for number in range(files):
        (data / f"{number:05d}.parquet").rename(data / f"train-{number:05d}-of-{files:05d}.parquet")


def _groups(images: Iterator[ExportImage]) -> Iterator[list[ExportImage]]:
    """Images by groups of rows; an empty group ends them."""
    while group := list(islice(images, _ROWS_A_GROUP)):
        yield group
    yield []


def _table(run: OpenedRun, group: list[ExportImage], *, start: int) -> pa.Table:
    rows = run.rows.slice(start, len(group))
    cells = [{"bytes": image.data, "path": f"{image.key}.{image.extension}"} for image in group]
    return with_features(rows.add_column(0, "image", pa.array(cells, _IMAGE)), run.class_names, image_column="image")
