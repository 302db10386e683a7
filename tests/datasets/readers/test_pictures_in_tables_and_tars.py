"""Tables, zip archives, tars and published layouts see pictures as folders do."""

import csv
import io
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from datasets.readers.image_table import read_image_table
from datasets.readers.image_tars import read_image_tars
from datasets.readers.imagenet import read_imagenet
from datasets.readers.images.image_files import open_image_files
from datasets.readers.lsun import read_lsun
from datasets.readers.tables.table_settings import TableSettings

DEEP = np.full((9, 9), 25_700, dtype=np.uint16)  # 100 of 255


def encoded(pixels, **settings):
    sink = io.BytesIO()
    Image.fromarray(np.asarray(pixels)).save(sink, format="PNG", **settings)
    return sink.getvalue()


def grey(value=50):
    return encoded(np.full((9, 9), value, dtype=np.uint8))


def colour(value=50):
    return encoded(np.full((9, 9, 3), (value, 0, 0), dtype=np.uint8))


def damaged_colour():
    return encoded(np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8))[:120]


def clear():
    return encoded(np.full((9, 9, 4), (0, 0, 0, 0), dtype=np.uint8))


def table(root, contents, *, labels=None, archive=False, **settings):
    names = [f"{number}.png" for number in range(len(contents))]
    if archive:
        with zipfile.ZipFile(root / "images.zip", "w") as file:
            for name, content in zip(names, contents, strict=True):
                file.writestr(name, content)
    else:
        (root / "images").mkdir(parents=True)
        for name, content in zip(names, contents, strict=True):
            (root / "images" / name).write_bytes(content)
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label"), *zip(names, labels or ["a"] * len(names), strict=True)])
    settings |= {"images": "images.zip" if archive else "images"}
    return read_image_table(
        root, TableSettings(name="own", table="labels.csv", image_column="file", label_column="label", **settings)
    )


def tars(root, contents):
    with tarfile.open(root / "a.tar", "w") as tar:
        for number, content in enumerate(contents):
            for extension, data in (("png", content), ("cls", b"0")):
                member = tarfile.TarInfo(f"{number}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return read_image_tars([root / "a.tar"], name="own", class_names=["a"], image_size=9, channels=None)


READERS = [
    table,
    lambda root, contents: table(root, contents, archive=True),
    tars,
]


@pytest.mark.parametrize("read", READERS, ids=["folder", "zip", "tar"])
@pytest.mark.parametrize(
    ("contents", "channels"),
    [
        ([grey(), grey(7)], 1),
        ([grey(), colour(), grey()], 3),
        ([damaged_colour(), grey(), damaged_colour()], 1),
        ([grey(), encoded(DEEP)], 1),
        ([b"", grey()], 1),
        ([colour(), grey()], 3),
    ],
    ids=["grey", "one in colour", "damaged colour", "16 bits", "empty file", "colour first"],
)
def test_a_set_is_grey_where_all_its_usable_images_are(tmp_path, read, contents, channels):
    assert read(tmp_path, contents).image_shape == (9, 9, channels)


@pytest.mark.parametrize("read", READERS, ids=["folder", "zip", "tar"])
def test_sixteen_bits_and_transparent_pictures_are_read_as_they_are_shown(tmp_path, read):
    images = read(tmp_path, [encoded(DEEP), clear()])

    assert images.images([0, 1])[:, 4, 4].tolist() == [[100] * 3, [255] * 3]


def test_readers_that_know_their_colours_scale_and_lay_over_white_too(tmp_path):
    for place in ("bedroom_train", "n01440764"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "0.png").write_bytes(encoded(DEEP))
        (tmp_path / place / "1.png").write_bytes(clear())

    for images in (read_lsun(tmp_path, image_size=9), read_imagenet(tmp_path, image_size=9)):
        assert images.images([0, 1])[:, 4, 4].tolist() == [[100] * 3, [255] * 3]


def test_the_size_of_a_table_is_that_of_the_turned_picture(tmp_path):
    tag = Image.Exif()
    tag[0x0112] = 8
    lying = encoded(np.zeros((4, 9), dtype=np.uint8), exif=tag)
    upright = encoded(np.zeros((9, 4), dtype=np.uint8))

    images = table(tmp_path, [lying, upright])

    assert images.image_shape == (9, 4, 1)
    assert images.readable()[0].tolist() == [0, 1]


def test_classes_of_a_table_that_are_numbers_are_sorted_as_numbers(tmp_path):
    images = table(tmp_path, [grey(), grey(), grey()], labels=["10", "9", "2"])

    assert images.class_names == ["2", "9", "10"]
    assert images.labels.tolist() == [2, 1, 0]


def test_a_member_that_unpacks_to_gigabytes_is_refused_by_its_declared_length(tmp_path):
    zeros = bytes(2**20)
    with (
        zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("0.png", "w", force_zip64=True) as member,
    ):
        for _ in range(300):
            member.write(zeros)
    assert (tmp_path / "bomb.zip").stat().st_size < 2**20

    with pytest.raises(ValueError, match=r"bomb\.zip: 0\.png has 314,572,800 bytes, more than the 268,435,456"):
        open_image_files(tmp_path / "bomb.zip").read("0.png")


def test_a_bomb_a_pointer_and_an_empty_file_are_rows_with_their_reasons(tmp_path):
    wide = bytearray(grey())
    wide[16:24] = (50_000).to_bytes(4, "big") * 2
    wide[29:33] = zlib.crc32(wide[12:29]).to_bytes(4, "big")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"

    good, problems = table(tmp_path, [grey(), bytes(wide), pointer, b""]).readable()

    assert good.tolist() == [0]
    assert [problem.source_id for problem in problems] == ["own/1.png", "own/2.png", "own/3.png"]
    for problem, reason in zip(problems, ("pixels", "run git lfs pull", "is an empty file"), strict=True):
        assert reason in problem.reason
