"""Class folders in a zip archive."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from datasets.readers.folder_zip import read_folder_zip


def png(shade, *, width=9, colour=False):
    pixels = np.full((8, width, 3) if colour else (8, width), shade, dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("wrapper", ["", "my pets/"])
def test_folders_are_classes_in_the_order_of_their_numbers(tmp_path, wrapper):
    members = {f"{wrapper}{name}/{i}.png": png(10 * i, width=8 + i) for name in ("10", "9") for i in range(2)}
    path = write_zip(tmp_path / "pets.zip", members | {f"{wrapper}9/Thumbs.db": b"x", "__MACOSX/._a.png": b"x"})

    images = read_folder_zip(path, image_size=8)

    assert images.class_names == ["9", "10"]
    assert images.source_ids == ["9/0.png", "9/1.png", "10/0.png", "10/1.png"]
    assert images.labels.tolist() == [0, 0, 1, 1]
    assert images.image_shape == (8, 8, 1)
    assert images.images(range(4))[:, 0, 0, 0].tolist() == [0, 10, 0, 10]
    assert images.parts is None
    assert {problem.kind for problem in images.problems} == {"hidden file", "file that is no image"}


def test_parts_are_the_makers(tmp_path):
    members = {f"{part}/{name}/0.png": png(1, colour=True) for part in ("train", "test") for name in "ab"}

    images = read_folder_zip(write_zip(tmp_path / "a.zip", members), image_size=8)

    assert images.class_names == ["a", "b"]
    assert images.parts == ["test", "test", "train", "train"]
    assert images.image_shape == (8, 8, 3)


def test_other_folders_are_passed_over_where_classes_are_named(tmp_path):
    path = write_zip(tmp_path / "a.zip", {f"{name}/0.png": png(1) for name in "abc"})

    images = read_folder_zip(path, image_size=8, classes=("c", "a"))

    assert images.class_names == ["c", "a"]
    assert [problem.kind for problem in images.problems] == ["image of a folder that is not among classes"]
    with pytest.raises(ValueError, match="no image of class 'd'"):
        read_folder_zip(path, image_size=8, classes=("a", "d"))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/0.png", "1.png"], "1.png lies in no class folder"),
        (["a/0.png", "b/c/1.png"], "b/c/1.png lies too deep"),
        (["notes.txt"], r"holds no image \(1 other files\)"),
    ],
)
def test_what_has_no_class_is_refused(tmp_path, names, message):
    with pytest.raises(ValueError, match=message):
        read_folder_zip(write_zip(tmp_path / "a.zip", dict.fromkeys(names, png(1))), image_size=8)
