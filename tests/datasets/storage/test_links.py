"""An unpacked archive may bring links to anywhere: no reader follows one out of its set."""

import io
import stat
import zipfile

import numpy as np
import pytest
from PIL import Image

from datasets.readers.celeba import read_celeba
from datasets.readers.folder import read_folder
from datasets.readers.image_table import read_image_table
from datasets.readers.imagenet import read_imagenet
from datasets.readers.lsun import read_lsun
from datasets.readers.tables.table_settings import TableSettings

TABLE = TableSettings(name="set", images="images", table="labels.csv", image_column="file", label_column="label")


def photo(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((16, 16, 3), value, np.uint8)).save(path)
    return path


@pytest.fixture
def private(tmp_path):
    """An image that is nobody's business."""
    return photo(tmp_path / "home" / "private.png", 200)


def folder_set(root):
    photo(root / "a" / "0.png")
    return root / "a" / "1.png", lambda: read_folder(root)


def imagenet_set(root):
    photo(root / "n01440764" / "0.png")
    return root / "n01440764" / "1.png", lambda: read_imagenet(root, image_size=16)


def lsun_set(root):
    photo(root / "bedroom_train" / "0.png")
    return root / "bedroom_train" / "1.png", lambda: read_lsun(root, image_size=16)


def table_set(root):
    photo(root / "images" / "0.png")
    (root / "labels.csv").write_text("file,label\n0.png,a\n1.png,a\n")
    return root / "images" / "1.png", lambda: read_image_table(root, TABLE)


@pytest.mark.parametrize("make", [folder_set, imagenet_set, lsun_set, table_set])
def test_a_link_out_of_the_set_is_a_problem_and_shows_nothing(tmp_path, private, make):
    link, read = make(tmp_path / "set")
    link.symlink_to(private)

    good, problems = read().readable()

    assert good.tolist() == [0]
    assert "is a link that leads out of" in problems[0].reason


@pytest.mark.parametrize("make", [folder_set, imagenet_set, lsun_set, table_set])
def test_a_link_within_the_set_and_a_linked_set_are_fine(tmp_path, make):
    link, _ = make(tmp_path / "disk")
    link.symlink_to(link.with_name("0.png"))
    (tmp_path / "set").symlink_to(tmp_path / "disk")
    _, read = make(tmp_path / "set")

    good, problems = read().readable()

    assert good.tolist() == [0, 1]
    assert problems == []


def test_a_face_that_is_a_link_out_of_the_set_is_a_problem(tiny_celeba, private):
    face = tiny_celeba / "img_align_celeba" / "000003.jpg"
    face.unlink()
    face.symlink_to(private)

    _, problems = read_celeba(tiny_celeba, image_size=16).readable()

    assert [problem.source_id for problem in problems] == ["celeba/000003"]


@pytest.mark.parametrize("name", ["../private.jpg", "/etc/passwd"])
def test_a_name_in_celebas_lists_that_leads_out_of_the_set_names_no_face(tiny_celeba, name):
    for listing in ("list_attr_celeba.txt", "list_eval_partition.txt"):
        text = (tiny_celeba / listing).read_text()
        (tiny_celeba / listing).write_text(text.replace("000003.jpg", name))
    photo(tiny_celeba / "private.jpg")

    with pytest.raises(FileNotFoundError, match=f"lacks 1 of 20 images, first {name}"):
        read_celeba(tiny_celeba, image_size=16)


def test_a_link_in_a_zip_archive_is_never_followed(tmp_path, private):
    encoded = io.BytesIO()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(encoded, "PNG")
    link = zipfile.ZipInfo("1.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    (tmp_path / "set").mkdir()
    with zipfile.ZipFile(tmp_path / "set" / "images", "w") as archive:
        archive.writestr("0.png", encoded.getvalue())
        archive.writestr(link, str(private))
    (tmp_path / "set" / "labels.csv").write_text("file,label\n0.png,a\n1.png,a\n")

    good, problems = read_image_table(tmp_path / "set", TABLE).readable()

    assert good.tolist() == [0]
    assert "cannot be decoded" in problems[0].reason
