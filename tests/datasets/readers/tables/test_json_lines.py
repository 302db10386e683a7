"""Tables of JSON lines: an object a line, as text cells."""

import pytest

from datasets.readers.tables.table_cells import column_names, read_cells


def written(folder, text):
    path = folder / "labels.jsonl"
    path.write_text(text, encoding="utf-8")
    return path


def test_cells_are_texts_and_absent_ones_empty(tmp_path):
    path = written(
        tmp_path,
        '{"file": "a.png", "dx": "nv", "age": 40.0, "sure": true}\n\n'
        '{"file": "b.png", "age": null, "size": [8, 8]}\r\n{"file": "c.png", "dx": " mel ", "age": NaN}',
    )

    rows, problems = read_cells(path, columns=["file", "dx", "age", "sure", "size"])

    assert column_names(path) == ["file", "dx", "age", "sure", "size"]
    assert problems == []
    assert rows == [
        ("labels.jsonl:1", ["a.png", "nv", "40", "true", ""]),
        ("labels.jsonl:3", ["b.png", "", "", "", "[8, 8]"]),
        ("labels.jsonl:4", ["c.png", "mel", "", "", ""]),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"file": "a.png"}\n{"file": ', "line 2 is no JSON"),
        ('{"file": "a.png"}\n["b.png"]', "line 2 is '\\[\"b.png\"\\]', no JSON object"),
    ],
)
def test_a_line_that_is_no_object_is_named(tmp_path, text, said):
    with pytest.raises(ValueError, match=said):
        read_cells(written(tmp_path, text), columns=["file"])


def test_a_column_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="no column 'dy'"):
        read_cells(written(tmp_path, '{"dx": "nv"}'), columns=["dy"])
