"""What somebody's folder of pictures holds, before anything is decided: counts, sizes, colours, columns of a table.

A look, not a reading: nothing is kept in memory but what is counted, and of very many images only some are opened.
"""

import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from datasets.readers.folder_zip import archived_images
from datasets.readers.images.image_files import ImageFiles, open_image_files
from datasets.readers.names.part_names import PART_FOLDERS, PART_NAMES
from datasets.readers.tables.table_cells import column_names, read_cells
from datasets.readers.tars.tar_survey import TarSet, look_at_tars, tars_at

#: Of more images than this, so many are opened, evenly spread over the names.
MOST_OPENED = 2000
_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
_GREY_MODES = {"1", "L", "LA", "I", "I;16", "I;16B", "F"}
_MISSING = {"", "NA", "N/A", "NaN", "nan", "None", "null", "unknown"}
#: Words by which columns are commonly called, the likeliest first.
_LABEL_WORDS = ("label", "class", "category", "diagnosis", "dx", "finding", "target", "species")
_IDENTITY_WORDS = ("patient", "subject", "lesion", "person", "identity", "individual")
_PART_WORDS = ("split", "part", "subset", "fold", "partition")
_GROUP_WORDS = ("sex", "gender", "age", "race", "ethnicity", "skin", "site", "hospital", "scanner", "view", "region")
_MOST_CLASSES = 1000


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its name.
        counts: How often each value occurs, missing ones left out.
        missing: Cells without a value.
        numeric: Whether every value is a number.
    """

    name: str
    counts: Counter[str]
    missing: int
    numeric: bool


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What lies in a folder, in a zip archive or in tars of images.

    Attributes:
        images: The folder or archive.
        table: The table beside it, or None.
        num_images: Image files.
        others: Files that are no images, by ending; "hidden" are those whose names begin with a dot, and what systems
            put into folders of their own.
        folders: Images in each sub-folder; "" for those that lie in none. Of tars, images of each class.
        tars: Where the tars are and what tells classes in them; None for a folder or a zip archive.
        opened: Images whose headers were looked at.
        sizes: How many of these have each (width, height), in pixels.
        grey: Whether all of these are grey.
        unreadable: Names of those that cannot be opened.
        duplicates: How many of these are equal, byte for byte, to one before.
        columns: The table's columns.
        image_column: The column whose cells name images, and what has to be put behind a cell to make it a name.
    """

    images: Path
    table: Path | None
    num_images: int
    others: Counter[str]
    folders: dict[str, int]
    tars: TarSet | None
    opened: int
    sizes: Counter[tuple[int, int]]
    grey: bool
    unreadable: list[str]
    duplicates: int
    columns: list[Column]
    image_column: tuple[str, str] | None

    def column(self, name: str) -> Column:
        """The column of that name; ValueError where there is none."""
        match = next((column for column in self.columns if column.name == name), None)
        if match is None:
            known = ", ".join(column.name for column in self.columns) or "none"
            raise ValueError(f"the table has no column {name!r}; its columns are {known}.")
        return match

    @property
    def has_test_folder(self) -> bool:
        """Whether the makers divided the set by folders: train/ and test/ (or val/) around the class folders."""
        first = {folder.split("/")[0].lower() for folder in self.folders if "/" in folder}
        return bool(first & (PART_FOLDERS.keys() - {"train", "training"}))

    @property
    def label_column(self) -> str | None:
        """The column that looks like the label."""
        wanted = [c for c in self.columns if 2 <= len(c.counts) <= min(_MOST_CLASSES, self.num_images // 2)]
        return _first_called(wanted, _LABEL_WORDS)

    @property
    def identity_column(self) -> str | None:
        """The column that looks like what is shown (a patient, a lesion), several images of which may be there."""
        return _first_called([c for c in self.columns if len(c.counts) > 1], _IDENTITY_WORDS)

    @property
    def split_column(self) -> str | None:
        """The column that looks like the makers' parts."""
        parts = [c for c in self.columns if c.counts and {value.lower() for value in c.counts} <= PART_NAMES.keys()]
        return _first_called(parts, _PART_WORDS)

    @property
    def group_columns(self) -> list[str]:
        """The columns that look like attributes by which groups are made."""
        likely = [c for c in self.columns if len(c.counts) > 1 and (c.numeric or len(c.counts) <= 50)]
        return [c.name for c in likely if _words(c.name) & set(_GROUP_WORDS)]


def survey(images: str | Path, *, table: str | Path | None = None) -> Survey:
    """Look at a set of images.

    Args:
        images: A folder, a zip archive, a tar, a folder of tars, or a pattern of tars such as DIR/train-{000..127}.tar.
        table: A .csv, .tsv, .jsonl or .parquet file with a row an image, for a folder or an archive.

    Raises:
        FileNotFoundError: One of them is missing.
        ValueError: There is no image, or the table cannot be read, or there is one beside tars.
    """
    path = Path(images)
    where = tars_at(path)
    tars: TarSet | None = None
    files: ImageFiles
    if where is None:
        files = open_image_files(path)
    elif table is not None:
        raise ValueError(f"{path} names tars, whose samples hold their classes; leave the table {table} out.")
    else:
        files, tars = look_at_tars(*where)
    everything = _all_names(path) if where is None and path.is_dir() else files.names()
    names = sorted(name for name in everything if not _is_hidden(name))
    pictures = [name for name in names if PurePosixPath(name).suffix.lower() in _IMAGE_SUFFIXES]
    if not pictures:
        raise ValueError(f"{path} holds no image ({len(names)} other files); name a folder or zip archive of images.")
    others = Counter(PurePosixPath(name).suffix.lower() or name for name in sorted(set(names) - set(pictures)))
    others += Counter({"hidden": len(everything) - len(names)})
    columns = [] if table is None else _columns(Path(table))
    opened = pictures[:: -(-len(pictures) // MOST_OPENED)]
    sizes, grey, unreadable, duplicates = _headers(files, opened)
    return Survey(
        images=path,
        table=None if table is None else Path(table),
        num_images=len(pictures),
        others=others,
        folders=_folders(path, pictures) if tars is None else dict(tars.counts),
        tars=tars,
        opened=len(opened),
        sizes=sizes,
        grey=grey,
        unreadable=unreadable,
        duplicates=duplicates,
        columns=columns,
        image_column=_image_column(columns, pictures),
    )


def _all_names(folder: Path) -> set[str]:
    """Every file below a folder, hidden ones, too."""
    return {
        (Path(below) / name).relative_to(folder).as_posix() for below, _, files in os.walk(folder) for name in files
    }


def _folders(folder: Path, pictures: Sequence[str]) -> dict[str, int]:
    """Images in each sub-folder; of an archive of class folders without the folder that may lie around them."""
    wrapper = ""
    if folder.is_file() and all("/" in name for name in pictures):
        with suppress(ValueError):  # told where the archive is read
            wrapper = archived_images(folder, pictures).wrapper
    return dict(Counter(str(PurePosixPath(name.removeprefix(wrapper)).parent).removeprefix(".") for name in pictures))


def _headers(files: ImageFiles, names: Sequence[str]) -> tuple[Counter[tuple[int, int]], bool, list[str], int]:
    sizes: Counter[tuple[int, int]] = Counter()
    modes: set[str] = set()
    unreadable: list[str] = []
    digests: Counter[bytes] = Counter()
    for name in names:
        try:
            content = files.read(name)
            with Image.open(io.BytesIO(content)) as image:
                sizes[image.size] += 1
                modes.add(image.mode)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            unreadable.append(name)
            continue
        digests[hashlib.sha256(content).digest()] += 1
    return sizes, modes <= _GREY_MODES, unreadable, sum(digests.values()) - len(digests)


def _columns(path: Path) -> list[Column]:
    names = column_names(path)
    rows, _ = read_cells(path, columns=names)
    columns = []
    for position, name in enumerate(names):
        cells = [row[position] for _, row in rows]
        counts = Counter(cell for cell in cells if cell not in _MISSING)
        numeric = bool(counts) and all(_is_number(value) for value in counts)
        columns.append(Column(name, counts, len(cells) - counts.total(), numeric))
    return columns


def _image_column(columns: Sequence[Column], pictures: Sequence[str]) -> tuple[str, str] | None:
    """The column most of whose cells name images, with or without an ending."""
    endings = ["", *dict.fromkeys(PurePosixPath(name).suffix for name in pictures)]
    present = set(pictures)
    candidates = [
        (sum(value + ending in present for value in column.counts), column.name, ending)
        for column in columns
        for ending in endings
    ]
    hits, name, ending = max(candidates, key=lambda entry: (entry[0], not entry[2]), default=(0, "", ""))
    return (name, ending) if hits else None


def _first_called(columns: Sequence[Column], words: Sequence[str]) -> str | None:
    ranked = [
        (min(words.index(word) for word in words if word in _words(c.name)), c.name)
        for c in columns
        if _words(c.name) & set(words)
    ]
    return min(ranked)[1] if ranked else None


def _words(name: str) -> set[str]:
    """The words of a column's name, e.g. of "lesion_id" or "patientId", and the name with nothing between them."""
    parts = re.findall(r"[A-Za-z][a-z]*|\d+", name)
    lower = {part.lower() for part in parts} | {name.lower()}
    return lower | {word.removesuffix("id") for word in lower}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)
