"""A column that a set's makers did not give, joined to its images: a pseudo-attribute that was found or guessed."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from datasets.readers.imageset import ImageSet

ID_COLUMN = "source_id"


def with_column(images: ImageSet, table: Path, *, column: str) -> ImageSet:
    """The same images in groups of class and column, with the column among their attributes.

    What the groups were before stays among the attributes, where it was one.

    Args:
        images: The set.
        table: .parquet or .csv with `source_id` and the column; images of other sets in it are passed over.
        column: Its name.

    Raises:
        FileNotFoundError: There is no such table.
        ValueError: It cannot be read, lacks a column, names an image twice, or has no value for an image of the set.
    """
    values = _values(table, column=column)
    missing = [name for name in images.source_ids if not values.get(name)]
    if missing:
        raise ValueError(
            f"{table} has no {column} for {len(missing)} of {len(images)} images, the first {missing[0]}; make it "
            "again with the images and the split of this set."
        )
    column_values: list[str | None] = [values[name] for name in images.source_ids]
    groups = [
        f"{group.partition(',')[0]},{column}={_word(values[name])}"
        for group, name in zip(images.groups, images.source_ids, strict=True)
    ]
    return replace(images, groups=groups, attributes={**images.attributes, column: column_values})


def _values(table: Path, *, column: str) -> dict[str, str]:
    if not table.is_file():
        raise FileNotFoundError(f"{table} does not exist; name the table that `minority discover` wrote.")
    try:
        if table.suffix == ".parquet":
            rows = pd.read_parquet(table)
        else:
            rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise ValueError(f"{table} cannot be read as a table ({str(error).splitlines()[0]}); make it again.") from error
    for name in (ID_COLUMN, column):
        if name not in rows.columns:
            raise ValueError(f"{table} has no column {name}; it has {', '.join(map(str, rows.columns))}.")
    _require_one_row_an_image(list(rows[ID_COLUMN]), table)
    return dict(zip(rows[ID_COLUMN], map(str, rows[column]), strict=True))


def _require_one_row_an_image(names: Sequence[str], table: Path) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{table} names the image {twice} twice; keep one of its rows.")


def _word(value: str) -> str:
    return value.replace(",", ";").replace("=", ":")
