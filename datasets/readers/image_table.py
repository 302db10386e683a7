"""Any set of "folder or zip of images + CSV or Parquet table", read as its TableSettings say."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.readers.class_names import in_class_order
from datasets.readers.decoding import Header, decode_bytes, fit_square, is_grey, read_header, to_pixels
from datasets.readers.image_files import ImageFiles, open_image_files
from datasets.readers.imageset import ImageSet, Problem
from datasets.readers.table_cells import read_cells
from datasets.readers.table_settings import TableSettings

MISSING = "unknown"


def read_image_table(folder: str | Path, settings: TableSettings) -> ImageSet:
    """Read a set of images with a table of labels and attributes.

    A row that cannot be used (no label, an unknown class or part, no such image, a word where a number is due, an image
    named before) is left out and is among the set's problems. Pixels are read when asked for.

    Args:
        folder: The folder that table and images lie in.
        settings: Where in them labels, groups, identities and parts are found.

    Returns:
        The set, in the order of the table. Groups are "<label column>=<class>,<column>=<value>,...", with "unknown" for
        a missing value; attributes are the group columns, binned, with None for a missing value.

    Raises:
        FileNotFoundError: Folder, table or images are missing.
        ValueError: One of them is damaged, a column is missing, a class has no image, or no row can be used.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder; name the folder that holds {settings.table}.")
    files = open_image_files(root / settings.images)
    rows, problems = _usable_rows(root / settings.table, files=files, settings=settings)
    if not rows:
        first = f" (first: {problems[0].source_id} {problems[0].reason})" if problems else ""
        raise ValueError(f"{root / settings.table} has no usable row{first}; correct the table or its settings.")
    class_names = list(settings.classes) or in_class_order({row.label for row in rows})
    counts = {name: sum(row.label == name for row in rows) for name in class_names}
    empty = [name for name, count in counts.items() if count == 0]
    if empty:
        raise ValueError(f"{root / settings.table} has no usable row of class {', '.join(empty)}; correct classes.")
    image_shape, mode = _shape(files, names=[row.image for row in rows], settings=settings)
    number = {name: label for label, name in enumerate(class_names)}
    columns = [group.column for group in settings.groups]
    return ImageSet(
        name=settings.name,
        labels=np.array([number[row.label] for row in rows], dtype=np.int64),
        groups=[_group_name([settings.label_column, *columns], [row.label, *row.values]) for row in rows],
        source_ids=[f"{settings.name}/{row.image}" for row in rows],
        class_names=class_names,
        image_shape=image_shape,
        load=_TableImages(files, [row.image for row in rows], mode, settings.image_size),
        identities=None if settings.identity_column is None else [row.identity for row in rows],
        attributes={column: [row.values[place] for row in rows] for place, column in enumerate(columns)},
        parts=None if settings.split_column is None else [row.part for row in rows],
        problems=tuple(problems),
    )


@dataclass(frozen=True)
class _Row:
    image: str
    label: str
    values: tuple[str | None, ...]
    identity: str
    part: str


@dataclass(frozen=True)
class _TableImages:
    files: ImageFiles
    names: list[str]
    mode: str
    image_size: int | None

    def __call__(self, index: int) -> NDArray[np.uint8]:
        name = self.names[index]
        image = decode_bytes(self.files.read(name), mode=self.mode, name=name)
        return to_pixels(image if self.image_size is None else fit_square(image, self.image_size))


def _usable_rows(path: Path, *, files: ImageFiles, settings: TableSettings) -> tuple[list[_Row], list[Problem]]:
    optional = [column for column in (settings.identity_column, settings.split_column) if column is not None]
    groups = [group.column for group in settings.groups]
    columns = list(dict.fromkeys([settings.image_column, settings.label_column, *groups, *optional]))
    lines, problems = read_cells(path, columns=columns)
    present = files.names()
    seen: set[str] = set()
    rows = []
    for place, cells in lines:
        try:
            row = _row(dict(zip(columns, cells, strict=True)), settings=settings)
            if row.image not in present:
                raise ValueError(f"names the image {row.image!r:.80}, which is not in {settings.images}")
            if row.image in seen:
                raise ValueError(f"names the image {row.image!r:.80} a second time")
        except ValueError as error:
            problems.append(Problem(place, f"{error}."))
            continue
        seen.add(row.image)
        rows.append(row)
    return rows, problems


def _row(cells: dict[str, str], *, settings: TableSettings) -> _Row:
    name, label = cells[settings.image_column], cells[settings.label_column]
    if not name:
        raise ValueError(f"names no image in {settings.image_column}")
    if label in settings.missing_values and label not in (*settings.classes, *settings.label_values):
        raise ValueError(f"has no label in {settings.label_column}")
    if settings.label_values:
        if label not in settings.label_values:
            raise ValueError(f"has the label {label!r:.60}, which label_values does not know")
        label = settings.label_values[label]
    if settings.classes and label not in settings.classes:
        raise ValueError(f"has the label {label!r:.60}, which is not among classes")
    values = tuple(
        None if cells[group.column] in settings.missing_values else group.value(cells[group.column])
        for group in settings.groups
    )
    identity = cells[settings.identity_column] if settings.identity_column is not None else ""
    if settings.identity_column is not None and not identity:
        raise ValueError(f"has no {settings.identity_column}, so that it could straddle two parts")
    part = ""
    if settings.split_column is not None:
        value = cells[settings.split_column]
        if value not in settings.split_values:
            raise ValueError(f"has {settings.split_column} {value!r:.60}, which split_values does not know")
        part = settings.split_values[value]
    image = f"{settings.image_prefix}{name}{settings.image_suffix}"
    return _Row(image=image, label=label, values=values, identity=identity, part=part)


def _group_name(columns: list[str], values: list[str | None]) -> str:
    words = [MISSING if value is None else value.replace(",", ";").replace("=", ":") for value in values]
    return ",".join(f"{column}={word}" for column, word in zip(columns, words, strict=True))


def _shape(files: ImageFiles, *, names: list[str], settings: TableSettings) -> tuple[tuple[int, int, int], str]:
    """(H, W, C), and "L" or "RGB", as the first usable image, the colours of all and the settings have it."""
    first, header = _first_usable(files, names=names, settings=settings)
    width, height = header.size if settings.image_size is None else (settings.image_size, settings.image_size)
    if settings.channels is not None:
        channels = settings.channels
    else:
        channels = 1 if header.is_grey and is_grey(_headers(files, names[first + 1 :])) else 3
    return (height, width, channels), "L" if channels == 1 else "RGB"


def _first_usable(files: ImageFiles, *, names: list[str], settings: TableSettings) -> tuple[int, Header]:
    reason = ""
    for place, name in enumerate(names):
        try:
            data = files.read(name)
            decode_bytes(data, mode="RGB", name=name)
            return place, read_header(data, name=name)
        except ValueError as error:
            reason = reason or str(error)
    raise ValueError(f"none of the {len(names)} images of {settings.name} can be read ({reason}); fetch them again.")


def _headers(files: ImageFiles, names: list[str]) -> Iterator[tuple[Header, Callable[[], object]]]:
    for name in names:
        try:
            data = files.read(name)
            yield read_header(data, name=name), partial(decode_bytes, data, mode="RGB", name=name)
        except ValueError:  # told when its pixels are asked for
            continue
