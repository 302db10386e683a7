"""A look at somebody's folder of pictures."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from datasets.survey import survey


def save(path, *, side=8, shade=0, colour=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((side, side, 3) if colour else (side, side), shade, dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_table(path, header, rows):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


def test_counts_folders_sizes_and_what_is_no_image(tmp_path):
    for i in range(3):
        save(tmp_path / "cat" / f"{i}.png", shade=i)
    save(tmp_path / "dog" / "0.png", side=16, shade=9)
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / ".DS_Store").write_bytes(b"x")

    seen = survey(tmp_path)

    assert seen.num_images == seen.opened == 4
    assert seen.folders == {"cat": 3, "dog": 1}
    assert seen.sizes == {(8, 8): 3, (16, 16): 1}
    assert seen.others == {".txt": 1}
    assert seen.grey
    assert seen.duplicates == 0


def test_equal_files_damaged_files_and_colour_are_seen(tmp_path):
    save(tmp_path / "a" / "0.png", shade=1)
    save(tmp_path / "a" / "1.png", shade=1)
    save(tmp_path / "b" / "2.png", colour=True)
    (tmp_path / "b" / "3.png").write_bytes(b"no image")

    seen = survey(tmp_path)

    assert seen.duplicates == 1
    assert seen.unreadable == ["b/3.png"]
    assert not seen.grey


def test_columns_are_recognised_by_name_and_content(tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for i in range(12):
            save(tmp_path / "tmp.png", shade=i)
            archive.write(tmp_path / "tmp.png", f"scan{i:02d}.png")
    rows = [
        f"scan{i:02d},{i // 2},{'mel' if i < 3 else 'nv'},{20 + i},{'train' if i < 9 else 'test'},{'MF'[i % 2]}"
        for i in range(12)
    ]
    write_table(tmp_path / "labels.csv", "image,patient_id,diagnosis,age,split,sex", rows)

    seen = survey(tmp_path / "images.zip", table=tmp_path / "labels.csv")

    assert seen.image_column == ("image", ".png")
    assert seen.label_column == "diagnosis"
    assert seen.identity_column == "patient_id"
    assert seen.split_column == "split"
    assert seen.group_columns == ["age", "sex"]
    assert seen.column("diagnosis").counts == {"mel": 3, "nv": 9}
    assert seen.column("age").numeric


def test_a_column_that_is_called_like_a_label_but_differs_in_every_row_is_none(tmp_path):
    for i in range(4):
        save(tmp_path / "images" / f"{i}.png", shade=i)
    write_table(tmp_path / "t.csv", "file,label", [f"{i}.png,word{i}" for i in range(4)])

    assert survey(tmp_path / "images", table=tmp_path / "t.csv").label_column is None


def test_of_very_many_images_some_are_opened(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.survey.MOST_OPENED", 3)
    for i in range(8):
        save(tmp_path / "a" / f"{i}.png", shade=i)

    seen = survey(tmp_path)

    assert (seen.num_images, seen.opened) == (8, 3)


def test_bad_input_is_named(tmp_path):
    (tmp_path / "readme.txt").write_text("nothing here")
    with pytest.raises(ValueError, match=r"holds no image \(1 other files\)"):
        survey(tmp_path)
    save(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match=r"labels\.csv does not exist"):
        survey(tmp_path, table=tmp_path / "labels.csv")
