import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets.runs.card import COLUMN_MEANINGS
from datasets.runs.records import FORMER_COLUMNS, METADATA_SCHEMA
from datasets.runs.tables import conform_rows, parse_table, replace_column, table_bytes


def test_missing_columns_become_nulls_and_types_those_of_the_schema(small_run):
    table = conform_rows(small_run["rows"](3), name="rows")

    assert table.schema == METADATA_SCHEMA
    assert table["realism"].to_pylist() == [None] * 3
    assert table["minority_score"].to_pylist() == [0.0, 0.125, 0.25]


def test_equal_tables_are_equal_bytes_however_they_were_put_together(small_run):
    whole = conform_rows(small_run["rows"](10), name="rows")
    pieces = pa.concat_tables([whole.slice(0, 3), whole.slice(3, 4), whole.slice(7)])

    assert table_bytes(pieces) == table_bytes(whole)
    assert parse_table(table_bytes(whole), name="x").equals(whole)


def test_bare_pandas_reads_the_bytes(small_run, tmp_path):
    (tmp_path / "rows.parquet").write_bytes(table_bytes(conform_rows(small_run["rows"](4), name="rows")))

    frame = pd.read_parquet(tmp_path / "rows.parquet")

    assert list(frame.columns) == METADATA_SCHEMA.names
    assert frame.query("label_name == 'dog'")["key"].tolist() == ["s0001", "s0003"]


def test_a_table_from_pandas_conforms(small_run):
    frame = small_run["rows"](4).to_pandas()

    table = conform_rows(pa.Table.from_pandas(frame, preserve_index=False), name="rows")

    assert table.equals(conform_rows(small_run["rows"](4), name="rows"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.append_column("rarity", pa.array([1, 2])), "unknown columns rarity"),
        (lambda t: t.drop_columns(["group"]), "lacks the column group"),
        (lambda t: t.set_column(0, "key", pa.array(["a", "a"])), "has the key 'a' twice"),
        (lambda t: t.set_column(0, "key", pa.array(["a", "b.png"])), r"has the key 'b\.png'; use"),
        (lambda t: t.set_column(0, "key", pa.array(["a", None])), "column key has 1 nulls"),
        (lambda t: t.set_column(5, "label", pa.array(["cat", "dog"])), "column label is string, expected int32"),
    ],
)
def test_rows_that_break_the_schema_are_refused(small_run, change, message):
    with pytest.raises(ValueError, match=message):
        conform_rows(change(small_run["rows"](2)), name="rows")


def test_a_damaged_file_is_named_and_never_another_exception(small_run):
    data = table_bytes(conform_rows(small_run["rows"](50), name="rows"))
    random = np.random.default_rng(0)

    with pytest.raises(ValueError, match=r"x\.parquet is not a readable Parquet file"):
        parse_table(data[:-9], name="x.parquet")
    for _ in range(300):
        broken, problem = bytearray(data), ""
        broken[random.integers(len(data))] ^= int(random.integers(1, 256))
        try:
            conform_rows(parse_table(bytes(broken), name="x.parquet"), name="x.parquet")
        except ValueError as error:
            problem = str(error)
        assert not problem or problem.startswith("x.parquet")


def test_a_file_with_other_columns_is_parsed_but_does_not_conform():
    sink = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), sink)

    table = parse_table(sink.getvalue(), name="x")

    assert table.num_rows == 1
    with pytest.raises(ValueError, match="unknown columns a"):
        conform_rows(table, name="x")


def test_tables_are_read_under_the_former_names_of_columns_and_samplers(small_run):
    rows = conform_rows(small_run["rows"](4), name="rows")
    rows = replace_column(rows, "sampler", values=["real", "minority", "plain", "real"])
    former = {now: name for name, now in FORMER_COLUMNS.items()}
    names = [former.get(name, name) for name in rows.column_names]
    sampler = [{"real": "none"}.get(name, name) for name in rows["sampler"].to_pylist()]
    stored = rows.rename_columns(names).set_column(names.index("sampler"), "sampler", pa.array(sampler))

    read = conform_rows(parse_table(table_bytes(stored), name="rows"), name="rows")

    assert read.equals(rows)
    assert former.keys() <= set(read.column_names)


def test_tables_of_other_columns_are_read_as_they_are():
    table = pa.table({"sampler": ["none"], "group": [1]}).replace_schema_metadata({"sha256": "0"})

    assert parse_table(table_bytes(table), name="plan").equals(table, check_metadata=True)


def test_the_card_explains_every_column_of_the_schema():
    assert list(COLUMN_MEANINGS) == METADATA_SCHEMA.names
