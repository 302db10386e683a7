"""A look at somebody's folder of pictures."""

import io
import tarfile
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
    assert seen.others == {".txt": 1, "hidden": 1}
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


def write_tar(path, samples):
    with tarfile.open(path, "w") as tar:
        for name, content in samples.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def png(shade):
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), shade, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("place", ["", "part-0.tar", "part-*.tar", "part-{0..1}.tar"])
def test_tars_are_seen_as_a_folder_a_file_or_a_pattern(tmp_path, place):
    for part in range(2):
        samples = {}
        for i in range(6):
            samples |= {f"{i}.png": png(10 * part + i), f"{i}.cls": str(i % 3 // 2 * 10).encode()}
        write_tar(tmp_path / f"part-{part}.tar", samples)

    seen = survey(tmp_path / place)

    times = 1 if place == "part-0.tar" else 2
    assert seen.num_images == seen.opened == 6 * times
    assert seen.folders == {"0": 4 * times, "10": 2 * times}
    assert seen.tars.class_names == [str(number) for number in range(11)]
    assert seen.others == {".cls": 6 * times}


def test_a_word_beside_each_image_is_its_class_and_without_one_tars_are_refused(tmp_path):
    words = {f"{i}.txt": ["cat", "dog"][i % 2].encode() for i in range(8)}
    write_tar(tmp_path / "a.tar", {f"{i}.png": png(i) for i in range(8)} | words)
    seen = survey(tmp_path / "a.tar")
    assert (seen.tars.label_extension, seen.tars.class_names) == ("txt", ["cat", "dog"])

    write_tar(tmp_path / "b.tar", {f"{i}.png": png(i) for i in range(8)})
    with pytest.raises(ValueError, match=r"looks like their class \(8 \.png\)"):
        survey(tmp_path / "b.tar")
    with pytest.raises(ValueError, match="leave the table"):
        survey(tmp_path / "a.tar", table=tmp_path / "labels.csv")


@pytest.mark.parametrize(("separator", "start"), [(";", ""), ("\t", "\ufeff"), (",", "\ufeff")])
def test_tables_are_seen_whatever_separates_their_cells(tmp_path, separator, start):
    for i in range(6):
        save(tmp_path / "images" / f"{i}.png", shade=i)
    rows = [["file", "species", "note, free"], *([f"{i}.png", "ab"[i % 2], "x"] for i in range(6))]
    lines = [separator.join(f'"{cell}"' if separator in cell else cell for cell in row) for row in rows]
    (tmp_path / "table.tsv").write_text(start + "\n".join(lines), encoding="utf-8")

    seen = survey(tmp_path / "images", table=tmp_path / "table.tsv")

    assert [column.name for column in seen.columns] == rows[0]
    assert seen.label_column == "species"
    assert seen.image_column == ("file", "")


def test_a_folder_around_the_class_folders_of_an_archive_does_not_count(tmp_path):
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for i in range(4):
            archive.writestr(f"pets/{'cat' if i else 'dog'}/{i}.png", png(i))
        archive.writestr("__MACOSX/pets/cat/._1.png", b"x")

    assert survey(tmp_path / "pets.zip").folders == {"cat": 3, "dog": 1}
