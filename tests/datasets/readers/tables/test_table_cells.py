"""CSV tables as people have them: other separators, spaces, stray quotes, other encodings."""

import csv
import io
import unicodedata

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.readers.tables.table_cells import OTHER_LENGTH, STRAY_QUOTE, read_cells


@pytest.fixture
def read(tmp_path):
    """Writes a CSV and reads two columns of it: rows by line, and problems by line."""

    def write_and_read(content, columns=("file", "label")):
        path = tmp_path / "t.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        rows, problems = read_cells(path, columns=columns)
        by_line = {int(place.partition(":")[2]): cells for place, cells in rows}
        return by_line, {int(problem.source_id.partition(":")[2]): problem.kind for problem in problems}

    return write_and_read


@pytest.mark.parametrize(
    "content",
    [
        "file,label\na.png,cat\nb.png,dog\n",
        "file, label\na.png, cat\nb.png, dog\n",
        " file ,label\r\n a.png,cat \r\nb.png,dog",
        "file;label\na.png;cat\nb.png;dog\n",
        "file\tlabel\na.png\tcat\nb.png\tdog\n",
        "n|file|label\n1|a.png|cat\n2|b.png|dog\n",
        '\ufeff"file","label"\n"a.png","cat"\n"b.png","dog"\n',
        'file, "label"\na.png, "cat"\nb.png, "dog"\n',
        "x,file,x,label\n1,a.png,2,cat\n3,b.png,4,dog\n",
    ],
)
def test_the_same_table_in_many_hands_reads_alike(read, content):
    assert read(content) == ({2: ["a.png", "cat"], 3: ["b.png", "dog"]}, {})


def test_a_stray_quote_costs_its_own_row_alone(read):
    lines = ["file,label,note", *(f"{n}.png,cat,fine" for n in range(2, 9))]
    lines[3] = '4.png,cat,"a "bean" sign"'  # not doubled
    lines[5] = '6.png,cat,"never closed'

    rows, problems = read("\n".join(lines) + "\n")

    assert sorted(rows) == [2, 3, 5, 7, 8]
    assert problems == {4: STRAY_QUOTE, 6: STRAY_QUOTE}


def test_a_quote_that_a_later_one_closes_does_not_swallow_rows(read):
    rows, problems = read('file,label\na.png,"cat\nb.png,dog\nc.png,"dog\nd.png,cat\n')

    assert sorted(rows) == [3, 5]
    assert problems == {2: STRAY_QUOTE, 4: STRAY_QUOTE}


def test_a_cell_of_two_lines_is_one_row_named_by_its_first(read):
    rows, problems = read('file,label\na.png,"cat\nor lynx"\nb.png,dog\n')

    assert rows == {2: ["a.png", "cat\nor lynx"], 4: ["b.png", "dog"]}
    assert problems == {}


def test_rows_of_another_length_are_problems_and_empty_lines_are_nothing(read):
    rows, problems = read("file,label\na.png,cat\n\nb.png\nc.png,dog,3\n")

    assert sorted(rows) == [2]
    assert problems == {4: OTHER_LENGTH, 5: OTHER_LENGTH}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "file,label\nM\u00fcller.png,cat\n".encode("latin-1"),
            r"line 2 holds the byte 0xfc.*Latin-1.*save it as UTF-8",
        ),
        ("file,label\na.png,cat\n".encode("utf-16"), "is written in UTF-16; save it as UTF-8"),
        ("file,label,label\na.png,cat,dog\n", "has the column 'label' 2 times; rename one"),
        ("file:label\na.png:cat\n", "has no column 'file'; did you mean one of 'file:label'"),
        ('file,"label\na.png,cat\n', "line 1, its header, has a stray quote"),
        ("", "has no column 'file'"),
    ],
)
def test_a_table_that_cannot_be_read_says_where_and_what_to_do(read, content, message):
    with pytest.raises(ValueError, match=message):
        read(content)


def test_cells_and_columns_are_one_unicode_form_in_csv_and_parquet(tmp_path):
    label, name = (unicodedata.normalize("NFD", text) for text in ("gr\u00f6\u00dfe", "M\u00fcller.png"))
    frame = pd.DataFrame({"file": [name], label: [unicodedata.normalize("NFD", "\u00fcber")]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")

    for path in (tmp_path / "t.csv", tmp_path / "t.parquet"):
        (row,), _ = read_cells(path, columns=["file", "gr\u00f6\u00dfe"])
        assert row[1] == ["M\u00fcller.png", "\u00fcber"], path.name


words = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)


@given(rows=st.lists(st.tuples(words, words), min_size=1, max_size=12))
def test_what_a_csv_writer_wrote_is_read_whole(tmp_path_factory, rows):
    sink = io.StringIO(newline="")
    csv.writer(sink).writerows([("file", "label"), *rows])
    path = tmp_path_factory.mktemp("any") / "t.csv"
    path.write_text(sink.getvalue(), encoding="utf-8", newline="")

    found, problems = read_cells(path, columns=["file", "label"])

    wanted = [[unicodedata.normalize("NFC", cell).strip() for cell in row] for row in rows]
    assert [cells for _, cells in found] == wanted
    assert problems == []
