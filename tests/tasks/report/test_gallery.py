"""The gallery's files: what is on the page and on the sheets beside it."""

import base64
import hashlib
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tasks.report import gallery
from tasks.report.sprites import SpriteSheets


@pytest.fixture(scope="module")
def inputs(gallery_inputs):
    return gallery_inputs(candidates=300)


@pytest.fixture(scope="module")
def page(inputs, write_page, tmp_path_factory):
    return write_page(inputs, tmp_path_factory.mktemp("gallery"))


def data_of(page):
    text = page.read_text()
    return json.loads(re.search(r'(?s)<script type="application/json" id="data">(.*?)</script>', text)[1])


def tile(page, sheet, number):
    """A thumbnail cut out of the sheets."""
    width, height = sheet["width"], sheet["height"]
    which, place = divmod(number, sheet["columns"] * sheet["rows"])
    row, column = divmod(place, sheet["columns"])
    with Image.open(page.parent / sheet["files"][which]) as picture:
        return np.asarray(picture)[row * height : (row + 1) * height, column * width : (column + 1) * width]


def test_every_candidate_is_on_the_page_kept_or_rejected_and_the_baseline_is_not(page, inputs):
    data, rows = data_of(page), inputs.metadata
    candidates = rows[rows["sampler"] == "minority"]

    assert data["candidates"]["key"] == candidates["key"].tolist()
    assert data["candidates"]["kept"] == candidates["kept"].astype(int).tolist()
    reasons = [data["reasons"][i] if i >= 0 else "kept" for i in data["candidates"]["reason"]]
    assert reasons == candidates["reason"].tolist()
    assert "kept" not in data["reasons"]
    assert [data["groups"][i] for i in data["candidates"]["group"]] == candidates["group"].tolist()


def test_the_sheets_hold_each_candidate_and_the_real_image_nearest_to_it(page, inputs):
    data, rows = data_of(page), inputs.metadata.set_index("key")
    real = rows[rows["source"] == "real"].reset_index().set_index("source_id")
    real_images = inputs.read_unit("real-00-00000")

    for number in (0, 1, 150, 299):
        key = data["candidates"]["key"][number]
        image = inputs.read_unit(rows.loc[key, "unit"])[key]
        nearest = real_images[real.loc[rows.loc[key, "nearest_source_id"], "key"]]
        assert (tile(page, data["sheets"]["candidates"], number) == image).all()
        place = data["candidates"]["nearest"][number]
        assert (tile(page, data["sheets"]["real"], place) == nearest).all()


def test_scores_are_given_to_four_digits_and_a_missing_one_is_none(page, inputs):
    data = data_of(page)
    rows = inputs.metadata[inputs.metadata["sampler"] == "minority"]

    assert data["scores"]["knn_distance"]["values"][:3] == [None] * 3
    shown = np.array(data["scores"]["minority_score"]["values"])
    np.testing.assert_allclose(shown, rows["minority_score"], rtol=5e-4)
    assert {"lof", "realism", "nearest_distance"} <= set(data["scores"])
    assert "evaluations" not in data["scores"]
    assert data["scores"]["knn_distance"]["title"] == "k-NN distance"


def test_the_policy_lets_its_own_script_and_style_through_by_hash_and_nothing_else(page):
    text = page.read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1].replace("&#39;", "'")
    script, style = re.search(r"(?s)<script>(.*?)</script>", text)[1], re.search(r"(?s)<style>(.*?)</style>", text)[1]

    def hashed(content):
        return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"

    assert policy == (
        f"default-src 'none'; img-src 'self' file:; style-src {hashed(style)}; script-src {hashed(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    assert not re.search(r"https?://", text)


def test_hostile_names_stay_text(gallery_inputs, write_page, tmp_path):
    names = ["</script><script>alert(1)</script>", "<!--", '"><img src=x>', *"3456789"]

    text = write_page(gallery_inputs(candidates=40, class_names=names), tmp_path).read_text()

    assert text.count("<script") == 2
    assert "<img" not in text
    assert "\\u003c/script\\u003e" in text


def test_a_page_that_is_there_is_left_alone_and_one_of_other_rows_made_anew(inputs, write_page, tmp_path):
    page = write_page(inputs, tmp_path)
    reads = []
    counted = replace(inputs, read_unit=lambda unit: reads.append(unit) or inputs.read_unit(unit))

    write_page(counted, tmp_path)
    assert reads == []

    other = inputs.metadata.copy()
    other.loc[other.index[-1], "reason"] = "refused in review"
    before = page.read_bytes()
    write_page(replace(counted, metadata=other), tmp_path)
    assert len(reads) == len(set(reads)) == 6
    assert page.read_bytes() != before


def test_equal_inputs_give_equal_files(inputs, page, write_page, tmp_path):
    again = write_page(inputs, tmp_path)

    names = sorted(path.relative_to(page.parent) for path in page.parent.rglob("*") if path.is_file())
    assert len(names) == 3
    assert all((again.parent / name).read_bytes() == (page.parent / name).read_bytes() for name in names)


def test_of_too_many_all_kept_ones_are_shown_and_those_left_out_are_counted(inputs, write_page, tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "MOST_SHOWN", 250)

    page = write_page(inputs, tmp_path)

    data, rows = data_of(page), inputs.metadata[inputs.metadata["sampler"] == "minority"]
    assert len(data["candidates"]["key"]) == 250
    assert sum(data["candidates"]["kept"]) == rows["kept"].sum()
    assert "50 of 300 candidates are left out" in page.read_text()


@pytest.mark.parametrize(("shape", "kind"), [((8, 8, 1), "PNG"), ((40, 40, 3), "WEBP"), ((200, 100, 3), "WEBP")])
def test_sheets_are_filled_one_after_the_other(shape, kind):
    files = {}
    sheets = SpriteSheets("x", files.__setitem__)
    rng = np.random.default_rng(0)
    for _ in range(700):
        sheets.add(np.full(shape, rng.integers(256), dtype=np.uint8))

    layout = sheets.close()

    assert list(files) == layout["files"]
    assert len(files) == -(-700 // (layout["columns"] * layout["rows"]))
    for content in files.values():
        with Image.open(io.BytesIO(content)) as picture:
            assert picture.format == kind
            assert picture.size == (layout["columns"] * layout["width"], layout["rows"] * layout["height"])
            assert max(picture.size) <= 1024
