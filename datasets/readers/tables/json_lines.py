"""Tables of JSON lines: an object a line, whose keys are the columns."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets.readers.names.text_forms import one_form

SUFFIXES = (".jsonl", ".ndjson")


def columns_of(rows: Iterable[Mapping[str, str]]) -> list[str]:
    """All keys of all objects, in the order in which they first come."""
    return list(dict.fromkeys(key for row in rows for key in row))


def objects(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Every line's number, from 1 on, and its object as text cells; empty lines are passed over.

    null is "", true and false are these words, whole numbers have no point, lists and objects are spelt as JSON.

    Raises:
        ValueError: A line is no JSON object, or the file is not UTF-8.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a readable file of JSON lines ({error}); save it as UTF-8.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} line {number} is no JSON ({error}); write one object a line.") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path} line {number} is {line.strip()!r:.40}, no JSON object; write one object a line.")
        yield number, {one_form(key).strip(): _cell(value) for key, value in row.items()}


def _cell(value: Any) -> str:
    if value is None or value != value:  # a NaN is unequal to itself
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (bool, list, dict)):
        return json.dumps(value, ensure_ascii=False)
    return one_form(str(value)).strip()
