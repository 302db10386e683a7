"""Columns of a CSV, Parquet or JSON lines file as plain text cells, with the rows that cannot be read set aside."""

import csv
import difflib
import io
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from datasets.readers.imageset import Problem
from datasets.readers.names.text_forms import one_form
from datasets.readers.tables import json_lines

# Why a row is left out, as it is counted.
STRAY_QUOTE = "row with a stray quote"
OTHER_LENGTH = "row with more or fewer cells than the header"

_SEPARATORS = ",;\t|"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def read_cells(path: Path, *, columns: Sequence[str]) -> tuple[list[tuple[str, list[str]]], list[Problem]]:
    """Read some columns of a table.

    Args:
        path: A .csv, .parquet or .jsonl file. A CSV is UTF-8, its first line names the columns, and cells are separated
            by commas, or by semicolons, tabs or bars where the columns are found so. Spaces around names and cells do
            not count.
        columns: The columns that are wanted.

    Returns:
        A pair (place, cells) for every readable row, where place names file and line and cells follow `columns`; absent
        values are "", whole numbers are written without a point, texts are in Unicode's composed form (NFC). And a
        problem for every row of another length or with a stray quote.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, no table, in another encoding, or lacks a column.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; put the set's table there or correct the settings.")
    if path.suffix in json_lines.SUFFIXES:
        return _json_lines(path, columns)
    return _parquet(path, columns) if path.suffix == ".parquet" else _csv(path, columns)


def column_names(path: Path) -> list[str]:
    """The names of a table's columns, empty ones left out; of a CSV with the separator that finds most of them.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, no table, in another encoding, or has a column twice.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; name the set's table, a .csv, .tsv, .jsonl or .parquet file.")
    if path.suffix in json_lines.SUFFIXES:
        return [name for name in json_lines.columns_of(row for _, row in json_lines.objects(path)) if name]
    if path.suffix == ".parquet":
        try:
            names = [one_form(name).strip() for name in pq.read_schema(path).names]
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{path} is not a readable Parquet file ({reason}); fetch it again.") from error
    else:
        lines = list(io.StringIO(_text_of(path), newline=""))
        first = next((number for number, line in enumerate(lines) if line.strip()), 0)
        _, names, _ = _header(path, lines, first, None)
    return [name for name in names if name]


def _csv(path: Path, columns: Sequence[str]) -> tuple[list[tuple[str, list[str]]], list[Problem]]:
    # The csv module takes both line ends; so does newline="".
    lines = list(io.StringIO(_text_of(path), newline=""))
    first = next((number for number, line in enumerate(lines) if line.strip()), 0)
    separator, header, first = _header(path, lines, first, columns)
    positions = _positions(path, header, columns)
    spaced = f"{separator} " in lines[first - 1] if lines else False
    rows: list[tuple[str, list[str]]] = []
    problems: list[Problem] = []
    for number, cells in _records(lines, first, separator=separator, spaced=spaced, width=len(header)):
        at = f"{path.name}:{number}"
        if isinstance(cells, str):
            reason = f"has a stray quote ({cells}); write a quote inside a quoted cell twice."
            problems.append(Problem(at, reason, kind=STRAY_QUOTE, on_disk=False, is_row=True))
        elif len(cells) != len(header):
            reason = f"has {len(cells)} cells, the header has {len(header)}."
            problems.append(Problem(at, reason, kind=OTHER_LENGTH, on_disk=False, is_row=True))
        else:
            rows.append((at, [one_form(cells[position]).strip() for position in positions]))
    return rows, problems


def _text_of(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} is not a readable CSV file ({error}); repair it or fetch it again.") from error
    if data[:2] in _UTF16:
        raise ValueError(f"{path} is written in UTF-16; save it as UTF-8.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path} is not a readable CSV file: line {line} holds the byte {data[error.start]:#04x}, which is not "
            "UTF-8; it may be Latin-1 or Windows-1252: save it as UTF-8."
        ) from error


def _header(path: Path, lines: list[str], first: int, columns: Sequence[str] | None) -> tuple[str, list[str], int]:
    """The separator, the names of the columns, and the number of lines up to and with the header.

    The separator is the one that finds the columns that are wanted, or most of them where all are.
    """
    separators = []
    stray = ""
    for separator in _SEPARATORS:
        reader = csv.reader(islice(lines, first, None), strict=True, delimiter=separator, skipinitialspace=True)
        try:
            header = [one_form(name).strip() for name in next(reader, [])]
        except csv.Error as error:
            stray = stray or str(error)
        else:
            separators.append((separator, header, first + reader.line_num))
    # The comma comes first, and stays where no separator gives all columns.
    if columns is None:
        fitting = sorted(separators, key=lambda entry: -len(entry[1]))
    else:
        fitting = [entry for entry in separators if {column.strip() for column in columns} <= set(entry[1])]
    if not fitting and stray:
        raise ValueError(
            f"{path} is not a readable CSV file: line {first + 1}, its header, has a stray quote ({stray})."
        )
    return (fitting or separators)[0]


def _records(
    lines: list[str], first: int, *, separator: str, spaced: bool, width: int
) -> Iterator[tuple[int, list[str] | str]]:
    """Every record with the number of its first line: its cells, or what is wrong with its quotes.

    A quote without its partner would swallow the lines up to the next one: only the line that it is in is given up.
    """
    at = first
    while at < len(lines):
        reader = csv.reader(
            islice(lines, at, None), strict=True, delimiter=separator, skipinitialspace=spaced
        )  # fmt: skip
        base = at
        while at < len(lines):
            problem = ""
            cells: list[str] = []
            try:
                cells = next(reader)
            except csv.Error as error:
                problem = str(error)
            many = base + reader.line_num - at > 1
            if many and len(cells) != width:
                problem = problem or "it swallows the lines below"
            if problem:
                yield at + 1, problem
                at += 1
                break
            if cells:
                yield at + 1, cells
            at = base + reader.line_num


def _json_lines(path: Path, columns: Sequence[str]) -> tuple[list[tuple[str, list[str]]], list[Problem]]:
    lines = list(json_lines.objects(path))
    header = json_lines.columns_of(row for _, row in lines)
    wanted = [header[position] for position in _positions(path, header, columns)]
    return [(f"{path.name}:{number}", [row.get(name, "") for name in wanted]) for number, row in lines], []


def _parquet(path: Path, columns: Sequence[str]) -> tuple[list[tuple[str, list[str]]], list[Problem]]:
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            wanted = [
                names[position] for position in _positions(path, [one_form(name).strip() for name in names], columns)
            ]
            table = file.read(columns=list(dict.fromkeys(wanted)))
            table.validate(full=True)
            cells = [_text(table[name]) for name in wanted]
    except (OSError, pa.ArrowException, MemoryError, UnicodeDecodeError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} is not a readable Parquet file ({reason}); fetch it again.") from error
    return [
        (f"{path.name}:{number}", list(row)) for number, row in enumerate(zip(*cells, strict=True), start=1)
    ], []  # fmt: skip


def _text(column: pa.ChunkedArray) -> Iterator[str]:
    for value in column.to_pylist():
        if value is None or value != value:  # a NaN is unequal to itself
            yield ""
        elif isinstance(value, float) and value.is_integer():
            yield str(int(value))
        else:
            yield one_form(str(value)).strip()


def _positions(path: Path, header: list[str], columns: Sequence[str]) -> list[int]:
    for column in columns:
        count = header.count(column.strip())
        if count == 1:
            continue
        if count:
            raise ValueError(f"{path} has the column {column!r} {count} times; rename one.")
        near = difflib.get_close_matches(column, header, n=3, cutoff=0.5) or header[:20]
        raise ValueError(f"{path} has no column {column!r:.80}; did you mean one of {', '.join(near)!r:.300}?")
    return [header.index(column.strip()) for column in columns]
