"""Tables of candidates as Parquet bytes: the schema enforced, the bytes reproducible."""

import io
import math
import re
from typing import IO, Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from datasets.runs.records import ALL_COLUMNS, FORMER_COLUMNS, METADATA_SCHEMA, WEIGHTS_SCHEMA, schema_for
from datasets.storage.canonical import DAMAGED

#: Rows that lie together in a file.
ROW_GROUP = 1 << 14
#: Keys are unique, so that a table of candidates has not even as many rows as bytes.
_MOST_ROWS_A_BYTE = 64
_PARQUET: dict[str, Any] = {"compression": "zstd", "write_statistics": True, "write_page_index": True}
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,89}")


def conform_rows(table: pa.Table, *, name: str) -> pa.Table:
    """Bring a table to METADATA_SCHEMA: its column order and types, absent nullable columns filled with nulls.

    A table with columns that only some runs have is brought to their schema (`schema_for`).

    Args:
        table: One row a candidate.
        name: What the table is called in errors.

    Raises:
        ValueError: A column is unknown, lacks where it may not, cannot be converted or holds nulls it may not; a key is
            doubled or has other characters than letters, digits, _ and -.
    """
    given = dict(zip(table.column_names, table.columns, strict=True))
    if len(given) < table.num_columns:
        raise ValueError(f"{name} has two columns of one name; make it again.")
    schema = schema_for(given)
    known = set(schema.names)
    unknown = [column for column in given if column not in known]
    if unknown:
        raise ValueError(f"{name} has the unknown columns {', '.join(unknown)}; declare them in METADATA_SCHEMA.")
    columns = []
    for field in schema:
        if field.name not in given and field.nullable:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        columns.append(_conform_column(given.get(field.name), field=field, name=name))
    conformed = pa.Table.from_arrays(columns, schema=schema)
    _require_keys(conformed["key"].to_pylist(), name=name)
    return conformed


class TableWriter:
    """Writes a table as Parquet, part by part: the bytes of `table_bytes` of the whole.

    Every part but the last must have ROW_GROUP rows. Use as a context: the file is whole when it ends.

    Args:
        sink: Takes the bytes.
        schema: METADATA_SCHEMA, or that of a reviewed run.
    """

    def __init__(self, sink: IO[bytes], schema: pa.Schema = METADATA_SCHEMA) -> None:
        self._writer = pq.ParquetWriter(sink, schema, **_PARQUET)

    def write(self, part: pa.Table) -> None:
        """Add rows."""
        self._writer.write_table(part.combine_chunks(), row_group_size=ROW_GROUP)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()


def table_bytes(table: pa.Table) -> bytes:
    """A table as Parquet; equal tables are equal bytes under one version of pyarrow.

    Every column has statistics a row group and a page, so that a reader that filters passes over what it need not see.
    """
    sink = io.BytesIO()
    # Chunk borders of the table in memory must not show in the file.
    pq.write_table(table.combine_chunks(), sink, row_group_size=ROW_GROUP, **_PARQUET)
    return sink.getvalue()


def parse_table(data: bytes, *, name: str) -> pa.Table:
    """Read Parquet bytes, whatever their columns; those of METADATA_SCHEMA that had another name before get today's.

    Raises:
        ValueError: The bytes are no readable Parquet file; the message gives `name`.
    """
    try:
        with pq.ParquetFile(io.BytesIO(data)) as file:
            rows = file.metadata.num_rows
            if rows > _MOST_ROWS_A_BYTE * len(data):
                raise ValueError(f"{rows} rows in {len(data)} bytes")
            table = file.read()
        table.validate(full=True)
        table = _under_new_names(table)
    except (OSError, ValueError, pa.ArrowException, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{name} is not a readable Parquet file ({reason}); {DAMAGED}") from error
    return table


def parse_weights(data: bytes, *, name: str) -> pa.Table:
    """Read a table of weights.

    Raises:
        ValueError: The bytes are no readable Parquet file in WEIGHTS_SCHEMA, or a weight is negative or not finite.
    """
    table = parse_table(data, name=name)
    if table.schema != WEIGHTS_SCHEMA:
        raise ValueError(
            f"{name} has the columns {', '.join(table.column_names)!r:.200}, which are not those of weights."
        )
    if not all(0 <= weight < math.inf for weight in table["weight"].to_pylist()):
        raise ValueError(f"{name} has a weight that is negative or not finite; make it again.")
    return table


def replace_column(table: pa.Table, column: str, *, values: list[Any] | pa.Array | pa.ChunkedArray) -> pa.Table:
    """The table, which has some of ALL_COLUMNS, with one column's values replaced or added."""
    field = ALL_COLUMNS.field(column)
    array = pa.array(values, type=field.type) if isinstance(values, list) else values
    position = table.schema.get_field_index(column)
    return table.append_column(field, array) if position < 0 else table.set_column(position, field, array)


def _under_new_names(table: pa.Table) -> pa.Table:
    """Columns and samplers of rows as METADATA_SCHEMA calls them now; any other table stays as it is."""
    names = table.column_names
    if any(name in FORMER_COLUMNS for name in names):
        table = table.rename_columns([FORMER_COLUMNS.get(name, name) for name in names])
    if not {"source", "sampler"} <= set(names) or table["sampler"].type != pa.string():
        return table
    # Asked without a Python value that pyarrow would convert: that imports pandas, a quarter of a small `verify`.
    if "none" not in table["sampler"].unique().to_pylist():
        return table
    of_real = pc.equal(table["sampler"], "none")
    position = table.schema.get_field_index("sampler")
    return table.set_column(position, table.schema.field(position), pc.if_else(of_real, "real", table["sampler"]))


def _conform_column(column: pa.ChunkedArray | None, *, field: pa.Field, name: str) -> pa.ChunkedArray:
    if column is None:
        raise ValueError(f"{name} lacks the column {field.name}; every row needs it.")
    if column.type != field.type:
        try:
            column = column.cast(field.type)
        except pa.ArrowException as error:
            raise ValueError(f"{name} column {field.name} is {column.type}, expected {field.type}: {error}.") from error
    if column.null_count and not field.nullable:
        raise ValueError(f"{name} column {field.name} has {column.null_count} nulls; every row needs a value.")
    return column


def _require_keys(keys: list[str], *, name: str) -> None:
    seen: set[str] = set()
    for key in keys:
        require_key(key, name=name)
        if key in seen:
            raise ValueError(f"{name} has the key {key!r} twice; keys are unique in a run.")
        seen.add(key)


def require_key(key: str, *, name: str) -> None:
    """Refuse a sample key that would not survive a tar: webdataset cuts names at the first dot.

    Raises:
        ValueError: The key is empty, longer than 90 or has other characters than letters, digits, _ and -.
    """
    if not _KEY.fullmatch(key):
        raise ValueError(f"{name} has the key {key!r}; use 1 to 90 letters, digits, _ and -, no dots or slashes.")
