"""Any set of "folder or zip of images + CSV or Parquet table", read as its TableSettings say."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.readers.images.decoding import Header, decode_bytes, fit_square, is_grey, read_header, to_pixels
from datasets.readers.images.image_files import open_image_files
from datasets.readers.images.image_masks import TableMasks
from datasets.readers.images.image_names import ImageNames, UnusableRowError
from datasets.readers.imageset import ImageSet, Problem, first_of
from datasets.readers.names.class_names import in_class_order
from datasets.readers.names.text_forms import loose_form, one_form
from datasets.readers.tables.table_cells import read_cells
from datasets.readers.tables.table_settings import GroupColumn, TableSettings

MISSING = "unknown"
_NO_CLASS = "which is not among classes"


def read_image_table(folder: str | Path, settings: TableSettings) -> ImageSet:
    """Read a set of images with a table of labels and attributes.

    A row that cannot be used (no label, an unknown class or part, no such image, a word where a number is due, an image
    named before) is left out and is among the set's problems, and so is an image that no row names. Pixels are read
    when asked for. Names and words are compared in one Unicode form (NFC).

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
    files = ImageNames(open_image_files(root / settings.images))
    rows, problems = _usable_rows(root / settings.table, files=files, settings=settings)
    if not rows:
        raise ValueError(
            f"{root / settings.table} has no usable row{first_of(problems)}; correct the table or its settings."
        )
    class_names = list(settings.classes) or in_class_order({row.label for row in rows})
    counts = {name: sum(row.label == name for row in rows) for name in class_names}
    empty = [name for name, count in counts.items() if count == 0]
    if empty:
        named = f"class {', '.join(empty)}{first_of(problems)}"
        raise ValueError(f"{root / settings.table} has no usable row of {named}; correct classes.")
    image_shape, mode = _shape(files, names=[row.image for row in rows], settings=settings)
    number = {name: label for label, name in enumerate(class_names)}
    columns = [group.column for group in settings.groups]
    masks = TableMasks(files, [row.mask for row in rows], [row.image for row in rows], settings.image_size)
    masked = settings.mask_column is not None
    return ImageSet(
        name=settings.name,
        labels=np.array([number[row.label] for row in rows], dtype=np.int64),
        groups=[_group_name([settings.label_column, *columns], [row.label, *row.values]) for row in rows],
        source_ids=[f"{settings.name}/{row.image}" for row in rows],
        class_names=class_names,
        image_shape=image_shape,
        load=_TableImages(files, [row.image for row in rows], mode, settings.image_size),
        identities=None if settings.identity_column is None else [row.identity for row in rows],
        attributes={column: [row.values[position] for row in rows] for position, column in enumerate(columns)},
        parts=None if settings.split_column is None else [row.part for row in rows],
        problems=tuple(problems),
        has_mask=np.array([row.mask != "" for row in rows]) if masked else None,
        load_mask=masks if masked else None,
    )


@dataclass(frozen=True)
class _Row:
    image: str
    label: str
    values: tuple[str | None, ...]
    identity: str
    part: str
    mask: str


@dataclass(frozen=True)
class _TableImages:
    files: ImageNames
    names: list[str]
    mode: str
    image_size: int | None

    def __call__(self, index: int) -> NDArray[np.uint8]:
        name = self.names[index]
        image = decode_bytes(self.files.read(name), mode=self.mode, name=name)
        return to_pixels(image if self.image_size is None else fit_square(image, self.image_size))


def _usable_rows(path: Path, *, files: ImageNames, settings: TableSettings) -> tuple[list[_Row], list[Problem]]:
    used = (settings.identity_column, settings.mask_column, settings.split_column)
    optional = [column for column in used if column is not None]
    groups = [group.column for group in settings.groups]
    columns = list(dict.fromkeys([settings.image_column, settings.label_column, *groups, *optional]))
    lines, problems = read_cells(path, columns=columns)
    row_of: dict[str, str] = {}
    masks: set[str] = set()
    left_out: list[tuple[str, UnusableRowError, str]] = []
    rows = []
    for line, cells in lines:
        named = dict(zip(columns, cells, strict=True))
        name = named[settings.image_column]
        image = one_form(f"{settings.image_prefix}{name}{settings.image_suffix}") if name else ""
        masks.add(_mask(named, settings))
        try:
            row = _row(named, image=image, settings=settings)
            files.require(image, source=settings.images)
            if row.mask:
                files.require(row.mask, source=settings.images)
            if image in row_of:
                raise UnusableRowError("image named by an earlier row", f"names the image {image!r:.80} a second time")
        except UnusableRowError as error:
            left_out.append((line, error, image))
            continue
        row_of[image] = line
        rows.append(row)
    for line, unusable, image in left_out:
        # The first row that is left out accounts for its image, unless another row uses it.
        lost = image in files and image not in row_of
        if lost:
            row_of[image] = line
        problems.append(Problem(line, _sentence(unusable), kind=unusable.kind, on_disk=lost, is_row=True))
    return rows, [*problems, *files.unnamed(masks.union(row_of), table=path.name, source=settings.images)]


def _mask(cells: Mapping[str, str], settings: TableSettings) -> str:
    """The name of a row's mask; "" where it has none."""
    cell = "" if settings.mask_column is None else cells[settings.mask_column]
    return "" if cell in settings.missing_values else one_form(cell)


def _sentence(error: ValueError) -> str:
    return str(error) if str(error).endswith("?") else f"{error}."


def _row(cells: dict[str, str], *, image: str, settings: TableSettings) -> _Row:
    if not image:
        raise UnusableRowError("row that names no image", f"names no image in {settings.image_column}")
    label = _label(cells[settings.label_column], settings)
    values = tuple(_value(group, cells[group.column], settings) for group in settings.groups)
    identity = "" if settings.identity_column is None else cells[settings.identity_column]
    if settings.identity_column is not None and identity in settings.missing_values:
        said = f" ({identity!r} counts as missing)" if identity else ""
        raise UnusableRowError(
            "row without identity", f"has no {settings.identity_column}{said}, so that it could straddle two parts"
        )
    part = ""
    if settings.split_column is not None:
        value = cells[settings.split_column]
        if value not in settings.split_values:
            raise UnusableRowError(
                "part that split_values does not know",
                f"has {settings.split_column} {value!r:.60}, which split_values does not know"
                + _meant(value, settings.split_values),
            )
        part = settings.split_values[value]
    return _Row(image=image, label=label, values=values, identity=identity, part=part, mask=_mask(cells, settings))


def _label(label: str, settings: TableSettings) -> str:
    if label in settings.missing_values and label not in (*settings.classes, *settings.label_values):
        if not label:
            raise UnusableRowError("row without label", f"has no label in {settings.label_column}")
        raise UnusableRowError(
            "label that counts as missing",
            f"has the label {label!r:.60} in {settings.label_column}, which missing_values counts as missing; "
            "list it in classes where it is a class",
        )
    for known, where in ((settings.label_values, "which label_values does not know"), (settings.classes, _NO_CLASS)):
        if known and label not in known:
            meant = _meant(label, known)
            kind = "label in another spelling than its class" if meant else "label that is no class"
            raise UnusableRowError(kind, f"has the label {label!r:.60}, {where}{meant}")
        label = settings.label_values.get(label, label) if known is settings.label_values else label
    return label


def _value(group: GroupColumn, cell: str, settings: TableSettings) -> str | None:
    if cell in settings.missing_values:
        return None
    try:
        return group.value(cell)
    except ValueError as error:
        raise UnusableRowError("word where a number is due", str(error)) from error


def _meant(word: str, known: Iterable[str]) -> str:
    """A hint where a known word differs in case or spaces alone."""
    near = [name for name in known if loose_form(name) == loose_form(word)]
    return f"; did you mean {near[0]!r:.60}?" if near else ""


def _group_name(columns: list[str], values: list[str | None]) -> str:
    words = [MISSING if value is None else value.replace(",", ";").replace("=", ":") for value in values]
    return ",".join(f"{column}={word}" for column, word in zip(columns, words, strict=True))


def _shape(files: ImageNames, *, names: list[str], settings: TableSettings) -> tuple[tuple[int, int, int], str]:
    """(H, W, C), and "L" or "RGB", as the first usable image, the colours of all and the settings have it."""
    first, header = _first_usable(files, names=names, settings=settings)
    width, height = header.size if settings.image_size is None else (settings.image_size, settings.image_size)
    if settings.channels is not None:
        channels = settings.channels
    else:
        channels = 1 if header.is_grey and is_grey(_headers(files, names[first + 1 :])) else 3
    return (height, width, channels), "L" if channels == 1 else "RGB"


def _first_usable(files: ImageNames, *, names: list[str], settings: TableSettings) -> tuple[int, Header]:
    reason = ""
    for row, name in enumerate(names):
        try:
            data = files.read(name)
            decode_bytes(data, mode="RGB", name=name)
            return row, read_header(data, name=name)
        except ValueError as error:
            reason = reason or str(error)
    raise ValueError(f"none of the {len(names)} images of {settings.name} can be read ({reason}); fetch them again.")


def _headers(files: ImageNames, names: list[str]) -> Iterator[tuple[Header, Callable[[], object]]]:
    for name in names:
        try:
            data = files.read(name)
            yield read_header(data, name=name), partial(decode_bytes, data, mode="RGB", name=name)
        except ValueError:  # told when its pixels are asked for
            continue
