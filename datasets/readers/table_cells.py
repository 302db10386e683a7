"""Columns of a CSV or Parquet file as plain text cells, with the rows that cannot be read set aside."""

import csv
import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from datasets.readers.imageset import Problem


def read_cells(path: Path, *, columns: Sequence[str]) -> tuple[list[tuple[str, list[str]]], list[Problem]]:
    """Read some columns of a table.

    Args:
        path: A .csv (UTF-8, first line names the columns) or .parquet file.
        columns: The columns that are wanted.

    Returns:
        A pair (place, cells) for every readable row, where place names file and row and cells follow `columns`; absent
        values are "", whole numbers are written without a point. And a problem for every row of another length.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, no table, or lacks a column.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; put the set's table there or correct the settings.")
    return _parquet(path, columns) if path.suffix == ".parquet" else _csv(path, columns)


def _csv(path: Path, columns: Sequence[str]) -> tuple[list[tuple[str, list[str]]], list[Problem]]:
    rows: list[tuple[str, list[str]]] = []
    problems: list[Problem] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            places = _places(path, header, columns)
            for cells in reader:
                place = f"{path.name}:{reader.line_num}"
                if not cells:
                    continue
                if len(cells) != len(header):
                    problems.append(Problem(place, f"has {len(cells)} cells, the header has {len(header)}."))
                    continue
                rows.append((place, [cells[position].strip() for position in places]))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a readable CSV file ({error}); repair it or fetch it again.") from error
    return rows, problems


def _parquet(path: Path, columns: Sequence[str]) -> tuple[list[tuple[str, list[str]]], list[Problem]]:
    try:
        with pq.ParquetFile(path) as file:
            _places(path, file.schema_arrow.names, columns)
            table = file.read(columns=list(dict.fromkeys(columns)))
            table.validate(full=True)
            cells = [_text(table[column]) for column in columns]
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
            yield str(value).strip()


def _places(path: Path, header: list[str], columns: Sequence[str]) -> list[int]:
    for column in columns:
        if header.count(column) == 1:
            continue
        if column in header:
            raise ValueError(f"{path} has the column {column!r} {header.count(column)} times; rename one.")
        near = difflib.get_close_matches(column, header, n=3, cutoff=0.5) or header[:20]
        raise ValueError(f"{path} has no column {column!r:.80}; did you mean one of {', '.join(near)!r:.300}?")
    return [header.index(column) for column in columns]
