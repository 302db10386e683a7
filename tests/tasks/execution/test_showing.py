"""Pictures and places that are shown in Prefect: small enough, and links only where a browser can follow them."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from tasks.execution.showing import MOST_BYTES, WEB_ADDRESS, artifact_key, data_uri, table, web_url


def png(side, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(noise).save(sink, format="PNG")
    return sink.getvalue()


def test_a_small_picture_is_shown_as_it_is():
    picture = png(8)

    assert data_uri(picture) == f"data:image/png;base64,{base64.b64encode(picture).decode()}"


def test_a_large_picture_is_made_small_enough_and_stays_a_picture():
    picture = png(900)
    assert len(picture) > 5 * MOST_BYTES

    kind, encoded = data_uri(picture).split(";base64,")

    assert kind == "data:image/jpeg"
    data = base64.b64decode(encoded)
    assert len(data) <= MOST_BYTES
    with Image.open(io.BytesIO(data)) as image:
        assert 200 < image.width == image.height < 900


@pytest.mark.parametrize(
    ("place", "address", "url"),
    [
        ("/srv/runs/digits/report.html", "", None),
        ("/srv/runs/digits/report.html", "https://files/runs/", "https://files/runs/digits/report.html"),
        ("/srv/other/digits/report.html", "https://files/runs", None),
        ("/srv/runs-2/report.html", "https://files/runs", None),
        ("https://bucket/digits/report.html", "", "https://bucket/digits/report.html"),
    ],
)
def test_a_place_is_a_link_where_a_web_server_serves_the_store(monkeypatch, place, address, url):
    monkeypatch.setenv(WEB_ADDRESS, address)

    assert web_url(place, store="/srv/runs") == url


def test_any_name_makes_a_key_that_prefect_takes():
    assert artifact_key("my_set.v2", "samples") == "my-set-v2-samples"


def test_a_table_is_markdown_whose_cells_stay_cells():
    assert table([{"a|b": "1"}, {"a|b": "x|y"}]).splitlines() == ["| a\\|b |", "| --- |", "| 1 |", "| x\\|y |"]
    assert table([]) == ""
