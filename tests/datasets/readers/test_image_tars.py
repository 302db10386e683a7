"""WebDataset tars of anybody: what is in no sample is told, and nothing is lost."""

import io
import tarfile
import unicodedata
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from datasets.readers.image_tars import TarSettings, read_image_tars, read_tar_folder
from datasets.readers.tars.tar_index import walk_members


def png(value):
    sink = io.BytesIO()
    Image.fromarray(np.full((9, 8, 3), value, np.uint8)).save(sink, "PNG")
    return sink.getvalue()


def write_tar(path, members, *, links=()):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        for name, kind in links:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "a.png"
            tar.addfile(entry)
    return path


def read(path, **settings):
    return read_image_tars([path], name="any", class_names=["cat", "dog"], image_size=8, **settings)


GOOD = [("a.png", png(1)), ("a.cls", b"0"), ("b.jpg", png(2)), ("b.cls", b"1")]


@pytest.mark.parametrize(
    ("members", "kinds", "on_disk"),
    [
        ([("s.1.png", png(0)), ("s.1.cls", b"0")], {"key with a dot in it": 2}, 1),
        ([("a.png", png(0))], {"second image of a key": 1}, 1),
        ([("a.jpeg", png(0))], {"second image of a key": 1}, 1),
        ([("a.cls", b"1")], {"second class of a key": 1}, 0),
        ([("c.png", b""), ("c.cls", b"0")], {"empty image": 1}, 1),
        ([("c.png", png(0)), ("c.cls", b"")], {"sample whose class is unknown": 1}, 1),
        ([("c.png", png(0)), ("c.cls", b"-1")], {"sample whose class is unknown": 1}, 1),
        ([("c.bmp", png(0)), ("c.cls", b"0")], {"sample without image": 1}, 1),
        ([("c.cls", b"0")], {"sample without image": 1}, 0),
        ([("c.webp", png(0))], {"sample without class": 1}, 1),
        ([("c.tiff", png(0))], {"tar member that is neither image nor class": 1}, 1),
        ([("notes.txt", b"x")], {"tar member that is neither image nor class": 1}, 0),
        ([("a.json", b"{}"), ("._a.png", b"x")], {}, 0),
    ],
)
def test_every_member_is_in_a_sample_or_told_with_its_reason(tmp_path, members, kinds, on_disk):
    found = read(write_tar(tmp_path / "t.tar", [*GOOD, *members]))

    assert found.source_ids == ["t.tar/a", "t.tar/b"]
    assert [int(found.image(index).mean()) for index in range(2)] == [1, 2]
    assert Counter(problem.kind for problem in found.problems) == kinds
    assert sum(problem.on_disk for problem in found.problems) == on_disk
    assert all(problem.source_id.startswith("t.tar/") and problem.reason for problem in found.problems)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_what_is_no_file_is_told_and_the_rest_is_read(tmp_path, kind):
    long = "d/" + "x" * 120 + ".png"
    path = write_tar(tmp_path / "t.tar", GOOD[:2], links=[(long, kind), ("z.png", kind)])
    with tarfile.open(path, "a") as tar:
        for name, content in GOOD[2:]:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))

    found = read(path)

    assert found.source_ids == ["t.tar/a", "t.tar/b"]
    assert {problem.source_id for problem in found.problems} == {f"t.tar/{long}", "t.tar/z.png"}
    assert {problem.kind for problem in found.problems} == {"tar member that is no file"}
    with path.open("rb") as file, pytest.raises(ValueError, match="which is no plain file"):
        list(walk_members(file, name="t.tar"))


def test_labels_may_be_words_in_members_of_another_extension(tmp_path):
    nfd = unicodedata.normalize("NFD", "L\u00f6we")
    members = [("a.tif", png(1)), ("a.txt", nfd.encode()), ("b.tif", png(2)), ("b.txt", b" no \n")]
    members += [("c.tif", png(3)), ("c.txt", b"No"), ("d.tif", png(4)), ("d.txt", b"\xff")]
    settings = {"image_extensions": [".TIF"], "label_extension": "txt"}

    found = read_image_tars(
        [write_tar(tmp_path / "t.tar", members)],
        name="any",
        class_names=["no", "L\u00f6we"],
        image_size=8,
        **settings,
    )

    assert found.labels.tolist() == [1, 0]
    reasons = {problem.source_id: problem.reason for problem in found.problems}
    assert reasons["t.tar/c"].endswith("did you mean 'no'?")
    assert "which is not among the classes." in reasons["t.tar/d"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_extensions": ["cls"]}, "must be different"),
        ({"image_extensions": []}, "image extensions none"),
        ({"label_extension": "a.cls"}, "hold no dot"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        read(write_tar(tmp_path / "t.tar", GOOD), **settings)


def test_a_folder_of_tars_is_read_by_its_pattern(tmp_path):
    write_tar(tmp_path / "train-1.tar", GOOD[2:])
    write_tar(tmp_path / "train-0.tar", GOOD[:2])
    write_tar(tmp_path / "other.tar", GOOD)

    found = read_tar_folder(tmp_path, TarSettings(classes=("cat", "dog"), pattern="train-*.tar"), image_size=8)

    assert found.source_ids == ["train-0.tar/a", "train-1.tar/b"]
    assert read_tar_folder(tmp_path / "other.tar", TarSettings(classes=("cat", "dog")), image_size=8).name == "tars"
    with pytest.raises(FileNotFoundError, match=r"holds no file 'x-\*\.tar'"):
        read_tar_folder(tmp_path, TarSettings(classes=("a",), pattern="x-*.tar"), image_size=8)
    with pytest.raises(ValueError, match="holds no usable sample of class 'bird'"):
        read_tar_folder(tmp_path / "other.tar", TarSettings(classes=("cat", "dog", "bird")), image_size=8)
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "link.tar").symlink_to(tmp_path / "other.tar")
    with pytest.raises(ValueError, match="is a link that leads out of"):
        read_tar_folder(tmp_path / "inside", TarSettings(classes=("cat", "dog")), image_size=8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": ()}, "classes is empty"),
        ({"classes": ("a",), "pattern": "../*.tar"}, "must name files below the folder"),
        ({"classes": ("a",), "name": "A B"}, "is not allowed"),
    ],
)
def test_tar_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        TarSettings(**settings)
