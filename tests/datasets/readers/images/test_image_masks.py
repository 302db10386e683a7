"""Masks beside the images of a table."""

import numpy as np
import pytest
from PIL import Image

from datasets.readers.image_table import read_image_table
from datasets.readers.images.image_digest import image_digest
from datasets.readers.tables.table_settings import TableSettings, table_settings

SETTINGS = TableSettings(
    name="skin", table="labels.csv", image_column="file", label_column="dx", mask_column="mask", images="images"
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for name in "abc":
        Image.new("RGB", (12, 10), (40, 0, 0)).save(tmp_path / "images" / f"{name}.png")
    write_mask(tmp_path, np.arange(10)[:, None] * np.ones(12) * 20)
    (tmp_path / "labels.csv").write_text("file,dx,mask\na.png,nevus,a_mask.png\nb.png,melanoma,\nc.png,nevus,NA\n")
    return tmp_path


def write_mask(folder, values):
    Image.fromarray(np.asarray(values, dtype=np.uint8)).save(folder / "images" / "a_mask.png")


def test_white_is_redrawn_and_an_empty_cell_is_no_mask(folder):
    found = read_image_table(folder, SETTINGS)

    assert found.has_mask.tolist() == [True, False, False]
    np.testing.assert_array_equal(found.mask(0), np.repeat(np.arange(10) >= 7, 12).reshape(10, 12))
    assert found.problems == ()  # a mask is no image that no row names
    with pytest.raises(ValueError, match=r"skin/b.png of skin has no mask"):
        found.mask(1)


def test_masks_stay_with_their_images_in_every_part(folder):
    found = read_image_table(folder, SETTINGS).subset([2, 0])

    assert found.has_mask.tolist() == [False, True]
    assert found.mask(1).sum() == 36
    assert found.subset([1]).mask(0).sum() == 36


def test_a_mask_is_cut_and_resized_as_its_image_is(folder):
    write_mask(folder, np.tile(np.arange(12) >= 6, (10, 1)) * 255)

    found = read_image_table(folder, table_settings({**_plain(SETTINGS), "image_size": 20}))

    assert found.image_shape == (20, 20, 3)
    assert found.mask(0)[:, :9].sum() == 0
    assert found.mask(0)[:, 11:].all()


def test_another_mask_is_another_set(folder):
    before = image_digest({"training": read_image_table(folder, SETTINGS)})
    write_mask(folder, np.full((10, 12), 255))

    after = image_digest({"training": read_image_table(folder, SETTINGS)})

    assert before != after


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.full((12, 10), 255), "a_mask.png is 10x12 pixels, its image a.png 12x10; make them equal"),
        (np.ones((10, 12)), "marks nothing of its image: no pixel is 128 or above"),
    ],
)
def test_a_mask_that_cannot_be_meant_is_refused(folder, values, says):
    write_mask(folder, values)

    with pytest.raises(ValueError, match=says):
        read_image_table(folder, SETTINGS).mask(0)


def test_a_row_whose_mask_is_missing_is_left_out_with_the_reason(folder):
    (folder / "images" / "a_mask.png").unlink()

    found = read_image_table(folder, SETTINGS)

    assert found.source_ids == ["skin/b.png", "skin/c.png"]
    assert "'a_mask.png', which is not in images" in found.problems[0].reason


def _plain(settings):
    named = ("name", "table", "image_column", "label_column", "mask_column", "images")
    return {name: getattr(settings, name) for name in named}
