import csv
import io
import zipfile

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets.readers.image_table import read_image_table
from datasets.readers.images.image_files import open_image_files
from datasets.readers.tables.table_settings import GroupColumn, TableSettings, read_table_settings, table_settings
from datasets.splits.identity_split import split_set
from datasets.splits.stratified import SplitSettings

SETTINGS = TableSettings(
    name="skin",
    table="labels.csv",
    image_column="file",
    label_column="dx",
    classes=("nevus", "melanoma"),
    groups=(GroupColumn(column="sex"), GroupColumn(column="age", edges=(40, 60))),
    identity_column="patient",
    split_column="part",
)
ROWS = [
    # file, dx, sex, age, patient, part
    ("a.png", "nevus", "f", "39.5", "p1", "train"),
    ("b.png", "nevus", "m", "40", "p1", "train"),
    ("c.png", "melanoma", "", "60", "p2", "val"),
    ("d.png", "melanoma", "m", "", "p3", "test"),
    ("e.png", "nevus", "f", "25", "p4", "test"),
    ("f.png", "melanoma", "f", "59", "p5", "train"),
]
COLUMNS = ["file", "dx", "sex", "age", "patient", "part"]


def png(value, *, size=(12, 10)):
    sink = io.BytesIO()
    Image.new("RGB", size, (value, 0, 0)).save(sink, format="PNG")
    return sink.getvalue()


def write_set(folder, rows, *, form="csv", archive=True):
    frame = pd.DataFrame(rows, columns=COLUMNS)
    if form == "csv":
        frame.to_csv(folder / "labels.csv", index=False)
    else:
        frame["age"] = pd.to_numeric(frame["age"])
        frame.to_parquet(folder / "labels.parquet")
    images = {name: png(10 * place) for place, name in enumerate("abcdef")}
    if archive:
        with zipfile.ZipFile(folder / "images.zip", "w") as file:
            for name, content in images.items():
                file.writestr(f"{name}.png", content)
    else:
        (folder / "images").mkdir()
        for name, content in images.items():
            (folder / "images" / f"{name}.png").write_bytes(content)


def changed(**changes):
    return TableSettings(**{**SETTINGS.__dict__, **changes})


@pytest.fixture
def folder(tmp_path):
    write_set(tmp_path, ROWS)
    return tmp_path


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("archive", [True, False])
def test_a_table_in_either_form_with_images_in_either_place_is_read_alike(tmp_path, form, archive):
    write_set(tmp_path, ROWS, form=form, archive=archive)

    found = read_image_table(tmp_path, changed(table=f"labels.{form}", images="images.zip" if archive else "images"))

    assert found.labels.tolist() == [0, 0, 1, 1, 0, 1]
    assert found.groups == [
        "dx=nevus,sex=f,age=below 40",
        "dx=nevus,sex=m,age=40 to 60",
        "dx=melanoma,sex=unknown,age=60 and above",
        "dx=melanoma,sex=m,age=unknown",
        "dx=nevus,sex=f,age=below 40",
        "dx=melanoma,sex=f,age=40 to 60",
    ]
    assert found.attributes["sex"] == ["f", "m", None, "m", "f", "f"]
    assert found.identities == ["p1", "p1", "p2", "p3", "p4", "p5"]
    assert found.parts == ["train", "train", "validation", "test", "test", "train"]
    assert found.source_ids[0] == "skin/a.png"
    assert found.image_shape == (10, 12, 3)
    assert [found.image(index)[0, 0, 0] for index in range(6)] == [0, 10, 20, 30, 40, 50]
    assert found.problems == ()


def test_images_are_cut_resized_and_turned_grey_as_asked(folder):
    found = read_image_table(folder, changed(image_size=8, channels=1))

    assert found.image(5).shape == found.image_shape == (8, 8, 1)


def test_a_part_of_the_set_keeps_identities_attributes_and_parts(folder):
    part = read_image_table(folder, SETTINGS).subset([5, 2])

    assert part.identities == ["p5", "p2"]
    assert part.attributes["age"] == ["40 to 60", "60 and above"]
    assert part.parts == ["train", "validation"]
    assert part.image(1)[0, 0, 0] == 20


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("file", "z.png", "names the image 'z.png', which is not in images.zip"),
        ("file", "a.png", "names the image 'a.png' a second time"),
        ("file", "", "names no image in file"),
        ("dx", "", "has no label in dx"),
        ("dx", "wart", "has the label 'wart', which is not among classes"),
        ("age", "old", "age is 'old', expected a number"),
        ("age", "inf", "age is 'inf', expected a number"),
        ("patient", "", "has no patient, so that it could straddle two parts"),
        ("part", "final", "has part 'final', which split_values does not know"),
    ],
)
def test_a_row_that_cannot_be_used_is_a_problem_with_its_place_and_reason(tmp_path, column, value, reason):
    row = dict(zip(COLUMNS, ROWS[1], strict=True)) | {column: value}
    write_set(tmp_path, [ROWS[0], tuple(row.values()), *ROWS[2:]])

    found = read_image_table(tmp_path, SETTINGS)

    assert len(found) == 5
    (problem,) = [problem for problem in found.problems if problem.is_row]
    assert (problem.source_id, problem.reason) == ("labels.csv:3", f"{reason}.")
    # The image of the row is still in the archive, and in no part.
    assert sum(problem.on_disk for problem in found.problems) == 1


def test_labels_can_be_merged_under_one_name(folder):
    found = read_image_table(folder, changed(classes=(), label_values={"nevus": "benign", "melanoma": "malign"}))

    assert found.class_names == ["benign", "malign"]
    assert found.labels.tolist() == [0, 0, 1, 1, 0, 1]


def test_images_that_cannot_be_decoded_are_problems_not_the_end(tmp_path):
    write_set(tmp_path, ROWS, archive=False)
    (tmp_path / "images" / "b.png").write_bytes(png(1)[:40])
    (tmp_path / "images" / "d.png").write_bytes(b"")
    (tmp_path / "images" / "e.png").write_bytes(png(1, size=(9, 9)))

    good, problems = read_image_table(tmp_path, changed(images="images")).readable()

    assert good.tolist() == [0, 2, 5]
    assert [problem.source_id for problem in problems] == ["skin/b.png", "skin/d.png", "skin/e.png"]
    assert "b.png cannot be decoded as an image" in problems[0].reason
    assert "d.png is an empty file" in problems[1].reason
    assert "resize or remove it" in problems[2].reason


def test_the_official_parts_decide_the_split(folder):
    split = split_set(read_image_table(folder, SETTINGS), SplitSettings(imbalance=None))

    assert split.train.tolist() == [0, 1, 5]
    assert split.validation.tolist() == [2]
    assert split.test.tolist() == [3, 4]


def test_official_parts_that_divide_a_patient_are_refused(tmp_path):
    write_set(tmp_path, [*ROWS[:4], ("e.png", "nevus", "f", "25", "p1", "test"), ROWS[5]])

    with pytest.raises(ValueError, match=r"parts of skin divide 1 identities, first 'p1'; split it by the rule"):
        split_set(read_image_table(tmp_path, SETTINGS), SplitSettings(imbalance=None))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_column": "diagnosis"}, r"labels\.csv has no column 'diagnosis'; did you mean one of"),
        ({"classes": ("nevus", "wart")}, "has no usable row of class wart"),
        ({"table": "none.csv"}, r"none\.csv does not exist; put the set's table there"),
        ({"images": "none.zip"}, r"none\.zip does not exist; name a folder or a zip"),
        ({"images": "labels.csv"}, r"labels\.csv is not a readable zip archive"),
        ({"image_prefix": "x/"}, r"has no usable row \(.*first: labels\.csv:2 names the image 'x/a\.png'"),
    ],
)
def test_settings_that_do_not_fit_the_set_are_named(folder, changes, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_image_table(folder, changed(**changes))


@pytest.mark.parametrize("archive", [True, False])
def test_no_name_leads_out_of_the_images(tmp_path, archive):
    write_set(tmp_path, ROWS, archive=archive)
    files = open_image_files(tmp_path / ("images.zip" if archive else "images"))

    for name in ("../labels.csv", str(tmp_path / "labels.csv"), "g.png"):
        with pytest.raises(ValueError, match=r"leads out of|has no member|cannot be read"):
            files.read(name)


YAML = """
name: skin
table: labels.csv
image_column: file
label_column: dx
classes: [nevus, melanoma]
groups:
  - sex
  - {column: age, edges: [40, 60]}
identity_column: patient
split_column: part
"""


def test_settings_can_be_written_in_yaml(tmp_path):
    (tmp_path / "skin.yaml").write_text(YAML)

    assert read_table_settings(tmp_path / "skin.yaml") == SETTINGS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: skin\ntabel: x.csv", "unknown key 'tabel'; did you mean table?"),
        ("name: skin", "the key table is missing"),
        (YAML + "channels: 2", "channels must be 1, 3 or None, got 2"),
        (YAML + "image_size: big", "image_size must be a whole number, got 'big'"),
        (YAML.replace("[40, 60]", "[60, 40]"), r"edges of age must be rising numbers, got \[60, 40\]"),
        (YAML.replace("- sex", "- [7]"), r"a group must be a column's name, or column and edges, got \[7\]"),
        (YAML + "label_values: {nevus: [1]}", r"label_values must hold text, got \[1\]"),
        (YAML + "name: other", r"is not readable YAML: it names the key 'name' twice"),
        (
            YAML.replace("labels.csv", "labels.xlsx"),
            r"must be a \.csv, \.tsv, \.jsonl or \.parquet file, got 'labels\.xlsx'",
        ),
        (YAML.replace("name: skin", "name: Skin Set"), "'Skin Set' is not allowed"),
        ("- 1", "must hold keys and values, got list"),
        ("{", "is not readable YAML"),
    ],
)
def test_yaml_that_is_wrong_is_one_line_that_names_file_and_key(tmp_path, text, message):
    (tmp_path / "skin.yaml").write_text(text)

    with pytest.raises(ValueError, match=message) as caught:
        read_table_settings(tmp_path / "skin.yaml")
    assert "skin.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def account_for(folder, sized_settings, *, num_rows):
    """Reads a set that may be damaged: one clear line, or every row is an image or a problem with a reason."""
    found, refusal = None, ""
    try:
        found = read_image_table(folder, sized_settings)
    except (ValueError, FileNotFoundError) as error:
        refusal = str(error)
    if found is None:
        assert refusal
        assert "\n" not in refusal
        return "refused"
    good, problems = found.readable()
    assert len(good) + len(problems) == len(found)
    assert all(problem.reason for problem in (*problems, *found.problems))
    if num_rows is not None:
        assert len(found) + sum(problem.is_row for problem in found.problems) == num_rows
    return "read"


cells = st.one_of(
    st.sampled_from(["", "a.png", "b.png", "nevus", "melanoma", "f", "nan", "1e999", "-0", "train", "test", "p1"]),
    st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=6),
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=st.lists(st.tuples(*[cells] * 6), max_size=8))
def test_a_table_of_any_words_gives_rows_or_reasons_and_loses_none(folder, rows):
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *ROWS, *rows])

    outcome = account_for(folder, SETTINGS, num_rows=len(ROWS) + len(rows))

    assert outcome == "read"


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data(), form=st.sampled_from(["csv", "parquet"]))
def test_a_damaged_table_gives_one_clear_line_or_rows_and_reasons(folder, data, form):
    write_set_table(folder, form)
    path = folder / f"labels.{form}"
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)

    account_for(folder, changed(table=path.name), num_rows=None)


def write_set_table(folder, form):
    frame = pd.DataFrame(ROWS, columns=COLUMNS)
    if form == "csv":
        frame.to_csv(folder / "labels.csv", index=False)
    else:
        frame.to_parquet(folder / "labels.parquet")


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_damaged_archive_gives_one_clear_line_or_rows_and_reasons(folder, data):
    write_set(folder, ROWS)
    path = folder / "images.zip"
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)

    account_for(folder, SETTINGS, num_rows=len(ROWS))


def test_a_member_that_lost_its_name_is_no_image(folder):
    write_set(folder, ROWS)
    path = folder / "images.zip"
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    # In the archive's directory the name becomes a comment.
    content[entry + 32], content[entry + 28] = content[entry + 28], 0
    path.write_bytes(content)

    found = read_image_table(folder, SETTINGS)

    assert [problem.kind for problem in found.problems] == ["row whose image is missing"]
    assert len(found) + len(found.problems) == len(ROWS)


odd_values = st.sampled_from(
    [None, True, 0, -1, 3, 2.5, float("nan"), "", "a", "a.csv", [], ["a"], [1], [None], {}, {"a": "b"}, {"a": 1}]
    + [[{"column": "a", "edges": edges}] for edges in (None, [], [1, 2], [2, 1], ["x"], [float("nan")], 7)]
)


@given(st.dictionaries(st.sampled_from([*TableSettings.__dataclass_fields__, "other"]), odd_values, max_size=4))
def test_settings_of_any_values_are_taken_or_refused_in_one_line(content):
    made, refusal = None, ""
    try:
        made = table_settings(
            {"name": "a", "table": "a.csv", "image_column": "a", "label_column": "b"} | content
        )  # fmt: skip
    except ValueError as error:
        refusal = str(error)

    assert (made is None) == bool(refusal)
    assert "\n" not in refusal


def kinds(image_set):
    return {problem.source_id: problem.kind for problem in image_set.problems}


@pytest.mark.parametrize("archive", [True, False])
def test_every_row_and_every_image_on_disk_is_used_or_left_out_for_a_reason(tmp_path, archive):
    rows = [
        ROWS[0],
        ("b.png", "Nevus ", "m", "40", "p1", "train"),  # another spelling
        ("c.png", "none", "m", "40", "p2", "train"),  # no class
        ("c.png", "melanoma", "m", "61", "unknown", "val"),  # no patient, and the image of the row before
        ("D.PNG", "melanoma", "m", "", "p3", "test"),  # nearly there
        ("e.png", "None", "f", "25", "p4", "test"),  # a word for nothing
        ROWS[5],
    ]
    write_set(tmp_path, rows, archive=archive)
    place = "images.zip" if archive else "images"

    found = read_image_table(tmp_path, changed(images=place))

    assert found.source_ids == ["skin/a.png", "skin/f.png"]
    assert kinds(found) == {
        "labels.csv:3": "label in another spelling than its class",
        "labels.csv:4": "label that is no class",
        "labels.csv:5": "row without identity",
        "labels.csv:6": "row whose image is missing",
        "labels.csv:7": "label that counts as missing",
        f"{place}/d.png": "image that no readable row names",
    }
    reasons = {problem.source_id: problem.reason for problem in found.problems}
    assert reasons["labels.csv:3"].endswith("did you mean 'nevus'?")
    assert reasons["labels.csv:6"].endswith("did you mean 'd.png'?")
    assert "'unknown' counts as missing" in reasons["labels.csv:5"]
    assert "list it in classes where it is a class" in reasons["labels.csv:7"]
    assert len(found) + sum(problem.is_row for problem in found.problems) == len(rows)
    assert len(found) + sum(problem.on_disk for problem in found.problems) == 6  # a.png to f.png


def test_words_for_nothing_are_classes_where_they_are_listed_as_such(tmp_path):
    rows = [(*row[:1], "None" if row[1] == "nevus" else "null", *row[2:]) for row in ROWS]
    write_set(tmp_path, rows)

    found = read_image_table(tmp_path, changed(classes=("None", "null")))

    assert found.labels.tolist() == [0, 0, 1, 1, 0, 1]
    assert found.problems == ()


NFC, NFD = "M\u00fcller", "Mu\u0308ller"


@pytest.mark.parametrize("stored", [NFC, NFD])
@pytest.mark.parametrize("written", [NFC, NFD])
@pytest.mark.parametrize("archive", [True, False])
def test_names_labels_and_groups_are_one_in_both_unicode_forms(tmp_path, stored, written, archive):
    (tmp_path / "images").mkdir()
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as file:
        for number in range(4):
            file.writestr(f"{stored}_{number}.png", png(number))
            (tmp_path / "images" / f"{stored}_{number}.png").write_bytes(png(number))
    frame = pd.DataFrame({"file": [f"{written}_{n}" for n in range(4)], "dx": [NFC, NFD, "a", "a"], "sex": [NFD] * 4})
    frame.to_csv(tmp_path / "labels.csv", index=False)

    found = read_image_table(
        tmp_path,
        TableSettings(
            name="skin",
            table="labels.csv",
            images="images.zip" if archive else "images",
            image_column="file",
            image_suffix=".png",
            label_column="dx",
            classes=(written, "a"),
            groups=(GroupColumn(column="sex"),),
        ),
    )

    assert found.source_ids[0] == f"skin/{NFC}_0.png"
    assert found.class_names == [NFC, "a"]
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert found.groups[0] == f"dx={NFC},sex={NFC}"
    assert found.problems == ()
    assert [found.image(number)[0, 0, 0] for number in range(4)] == [0, 1, 2, 3]


def test_names_in_a_zip_that_does_not_say_it_is_utf8_are_read_as_such(tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as file:
        for number in range(2):
            # What Python makes of the bytes that macOS writes without the flag.
            file.writestr(f"{NFD}_{number}.png".encode().decode("cp437"), png(number))
    (tmp_path / "labels.csv").write_text(f"file,dx\n{NFC}_0.png,a\n{NFC}_1.png,b\n", encoding="utf-8")

    found = read_image_table(
        tmp_path, TableSettings(name="skin", table="labels.csv", image_column="file", label_column="dx")
    )

    assert found.source_ids == [f"skin/{NFC}_0.png", f"skin/{NFC}_1.png"]
    assert found.image(1)[0, 0, 0] == 1


def test_two_files_with_one_name_in_two_forms_are_told(folder):
    with zipfile.ZipFile(folder / "images.zip", "a") as file:
        file.writestr(f"{NFC}.png", png(1))
        file.writestr(f"{NFD}.png", png(2))

    found = read_image_table(folder, SETTINGS)

    assert sorted(problem.kind for problem in found.problems) == [
        "image that no readable row names",
        "image whose name another has in another Unicode form",
    ]
    assert all(problem.on_disk and not problem.is_row for problem in found.problems)


WORDS = ["no", "yes", "on", "off", "01", "1e3", "2020-01-01", "null", "~", "1_000", "0x10", "12:30", "1.50"]


def test_every_text_of_the_settings_is_what_was_written(tmp_path):
    listed = ", ".join(WORDS)
    (tmp_path / "s.yaml").write_text(
        f"name: 007\ntable: t.csv\nimage_column: no\nlabel_column: 2020-01-01\nclasses: [{listed}]\n"
        f"missing_values: [{listed}, ]\nlabel_values: {{{', '.join(f'{word}: {word}' for word in WORDS)}}}\n"
        "groups: [on, {column: off, edges: [1, 2.5]}]\nsplit_column: 1e3\nsplit_values: {0: train, 01: test}\n"
        "identity_column: null\nimage_size: 16\nchannels: null\nimage_prefix: 01\n"
    )

    found = read_table_settings(tmp_path / "s.yaml")

    assert list(found.classes) == list(found.missing_values) == list(found.label_values) == WORDS
    assert list(found.label_values.values()) == WORDS
    assert (found.name, found.image_column, found.label_column, found.split_column) == (
        "007",
        "no",
        "2020-01-01",
        "1e3",
    )
    assert found.split_values == {"0": "train", "01": "test"}
    assert [group.column for group in found.groups] == ["on", "off"]
    assert found.groups[1].edges == (1.0, 2.5)
    assert (found.identity_column, found.image_size, found.channels, found.image_prefix) == (None, 16, None, "01")


@pytest.mark.parametrize("word", [False, None, 1.0])
def test_what_another_reader_of_yaml_made_of_a_word_is_refused_with_the_way_out(word):
    with pytest.raises(ValueError, match=r"classes must hold text, got .*such as no or 1\.0, quote it"):
        table_settings(
            {"name": "a", "table": "a.csv", "image_column": "a", "label_column": "b", "classes": [word, "x"]}
        )


def test_keys_that_are_one_name_in_two_unicode_forms_are_refused():
    with pytest.raises(ValueError, match="label_values has two keys that are one name"):
        changed(label_values={NFC: "nevus", NFD: "melanoma"})
