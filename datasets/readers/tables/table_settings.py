"""How a set of "folder or zip of images + table" is laid out: an order form, filled in in Python or YAML."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from datasets.readers.names.part_names import PART_NAMES
from datasets.readers.names.text_forms import one_form
from datasets.readers.tables import json_lines
from datasets.storage.names import require_name
from datasets.storage.yaml_text import Written, load_yaml, plain


@dataclass(frozen=True, kw_only=True)
class GroupColumn:
    """A column whose values divide the classes into groups.

    Attributes:
        column: Its name in the table.
        edges: For a column of numbers, rising inner edges of its bins: (40, 60) gives "below 40", "40 to 60" (60 not
            included) and "60 and above". None for a column of words.
    """

    column: str
    edges: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "column", one_form(self.column))
        if not self.column:
            raise ValueError("GroupColumn.column is empty; name a column of the table.")
        if self.edges is not None:
            object.__setattr__(self, "edges", _rising(self.edges, column=self.column))

    def value(self, cell: str) -> str:
        """The group value of a cell that is not empty.

        Raises:
            ValueError: The column has bins and the cell is no finite number.
        """
        if self.edges is None:
            return cell
        try:
            number = float(cell)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"{self.column} is {cell!r:.40}, expected a number")
        if number < self.edges[0]:
            return f"below {self.edges[0]:g}"
        if number >= self.edges[-1]:
            return f"{self.edges[-1]:g} and above"
        above = next(number_of_edge for number_of_edge, edge in enumerate(self.edges) if number < edge)
        return f"{self.edges[above - 1]:g} to {self.edges[above]:g}"


@dataclass(frozen=True, kw_only=True)
class TableSettings:
    """Where images, labels, groups, identities and parts of a set are found.

    Attributes:
        name: The set's name: small letters, digits, dot, _ and -.
        table: CSV (also .tsv) or Parquet file, relative to the set's folder.
        image_column: Column that names each image.
        label_column: Column that names each image's class.
        images: Folder or zip archive of the images, relative to the set's folder.
        image_prefix: Put before each image name, e.g. "images/".
        image_suffix: Put behind each image name, e.g. ".jpg".
        classes: The classes in the order of their labels; rows of other classes are left out with a reason. Empty: all
            values of the column, sorted; as numbers where all are whole numbers.
        label_values: Value of the label column -> class, to merge values under one name; rows of other values are left
            out with a reason. Empty: every value is its own class.
        groups: Columns whose values, with the class, make the groups. Missing values are a value of their own.
        identity_column: Column that tells what is shown (patient, lesion), so that it stays in one part of a split.
        mask_column: Column that names each image's mask, a file among the images: white where an edit may redraw the
            image (`edit.masked`). An image whose cell is empty has none.
        split_column: Column with the part each image officially belongs to.
        split_values: Value of that column -> "train", "validation" or "test".
        missing_values: Cells that count as empty.
        image_size: Side in pixels of the central square that images are cut and resized to; None takes them as they
            are, all of one size.
        channels: 1 (grey), 3 (RGB), or None: grey where all usable images are.
        licence: Where the images come from and what may be done with them, for the data card.
    """

    name: str
    table: str
    image_column: str
    label_column: str
    images: str = "images.zip"
    image_prefix: str = ""
    image_suffix: str = ""
    classes: tuple[str, ...] = ()
    label_values: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[GroupColumn, ...] = ()
    identity_column: str | None = None
    mask_column: str | None = None
    split_column: str | None = None
    split_values: Mapping[str, str] = field(default_factory=lambda: dict(PART_NAMES))
    missing_values: tuple[str, ...] = ("", "NA", "N/A", "NaN", "nan", "None", "null", "unknown")
    image_size: int | None = None
    channels: int | None = None
    licence: str = "Unknown; ask whoever gave you the images."

    def __post_init__(self) -> None:
        for entry in fields(self):
            object.__setattr__(self, entry.name, _composed(entry.name, getattr(self, entry.name)))
        require_name("TableSettings.name", self.name)
        if not self.table.endswith((".csv", ".tsv", ".parquet", *json_lines.SUFFIXES)):
            raise ValueError(f"TableSettings.table must be a .csv, .tsv, .jsonl or .parquet file, got {self.table!r}.")
        if not self.image_column or not self.label_column:
            raise ValueError("TableSettings.image_column and label_column must name columns of the table.")
        if self.image_size is not None and self.image_size < 1:
            raise ValueError(f"TableSettings.image_size must be at least 1 pixel, or None, got {self.image_size}.")
        if self.channels not in {None, 1, 3}:
            raise ValueError(f"TableSettings.channels must be 1, 3 or None, got {self.channels}.")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"TableSettings.classes names a class twice: {', '.join(self.classes)}.")
        odd = set(self.split_values.values()) - {"train", "validation", "test"}
        if odd:
            raise ValueError(f"TableSettings.split_values must lead to train, validation or test, got {min(odd)!r}.")


def _composed(key: str, value: Any) -> Any:
    """A setting with all its texts in one Unicode form."""
    if isinstance(value, str):
        return one_form(value)
    if isinstance(value, tuple):
        return tuple(_composed(key, entry) for entry in value)
    if not isinstance(value, Mapping):
        return value
    composed = {one_form(name): one_form(part) for name, part in value.items()}
    if len(composed) != len(value):
        raise ValueError(f"TableSettings.{key} has two keys that are one name in different Unicode forms; keep one.")
    return composed


def read_table_settings(path: str | Path) -> TableSettings:
    """Read settings from a YAML file, one key an attribute; a group is a column's name or a mapping of GroupColumn.

    Texts are what was written, quoted or not: no, 01, 1e3, 2020-01-01 and null are names like any other.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no YAML mapping, has unknown or lacks necessary keys, or a value is not allowed.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist; name a YAML file with the set's table settings.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as text ({error}).") from error
    try:
        content = load_yaml(text)
    except ValueError as error:
        raise ValueError(f"{path} is not readable YAML: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold keys and values, got {type(content).__name__}.")
    try:
        return table_settings(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def table_settings(content: Mapping[str, Any]) -> TableSettings:
    """Make settings of plain lists, mappings and scalars, or of those that `load_yaml` returns.

    Raises:
        ValueError: A key is unknown or lacking, or a value of the wrong type or not allowed.
    """
    known = [entry.name for entry in fields(TableSettings)]
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            raise ValueError(f"unknown key {key!r}{f'; did you mean {near[0]}?' if near else '.'}")
    lacking = [key for key in ("name", "table", "image_column", "label_column") if key not in content]
    if lacking:
        raise ValueError(f"the key {lacking[0]} is missing.")
    values: dict[str, Any] = {key: _value(key, value) for key, value in content.items()}
    return TableSettings(**values)


def _value(key: str, value: Any) -> Any:
    if key == "groups":
        return tuple(_group(entry) for entry in _list(key, value))
    if key in {"classes", "missing_values"}:
        return tuple(_text(key, entry) for entry in _list(key, value))
    if key in {"split_values", "label_values"}:
        if not isinstance(value, dict):
            raise ValueError(f"{key} must be a mapping, got {plain(value)!r:.60}.")
        return {_text(key, name): _text(key, part) for name, part in value.items()}
    written = value.value if isinstance(value, Written) else value
    if key in {"image_size", "channels"}:
        if written is not None and (not isinstance(written, int) or isinstance(written, bool)):
            raise ValueError(f"{key} must be a whole number, got {written!r:.60}.")
        return written
    if key in {"identity_column", "mask_column", "split_column"} and written is None:
        return None
    return _text(key, value)


def _text(key: str, value: Any) -> str:
    """A text, as it was written. A number may stand for one, but not what YAML made of a word."""
    if isinstance(value, Written):
        return value.text
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(
            f"{key} must hold text, got {plain(value)!r:.60}; where that was a word such as no or 1.0, quote it."
        )
    return value


def _group(entry: Any) -> GroupColumn:
    if isinstance(entry, str | Written):
        return GroupColumn(column=_text("groups", entry))
    named = isinstance(entry, dict) and isinstance(entry.get("column"), str | Written)
    if not named or set(entry) - {"column", "edges"}:
        raise ValueError(f"a group must be a column's name, or column and edges, got {plain(entry)!r:.60}.")
    edges = plain(entry.get("edges"))
    return GroupColumn(
        column=_text("groups", entry["column"]), edges=None if edges is None else tuple(_list("edges", edges))
    )


def _list(key: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{key} must be a list, got {plain(value)!r:.60}.")
    return value


def _rising(edges: Any, *, column: str) -> tuple[float, ...]:
    numbers = [edge for edge in edges if isinstance(edge, int | float) and not isinstance(edge, bool)]
    rising = all(low < high for low, high in pairwise(numbers))
    if not numbers or len(numbers) != len(edges) or not rising or not all(map(math.isfinite, numbers)):
        raise ValueError(f"GroupColumn.edges of {column} must be rising numbers, got {list(edges)!r:.60}.")
    return tuple(float(number) for number in numbers)
