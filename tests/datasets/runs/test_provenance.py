import io
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from datasets.readers.images.encoding import decode_png, encode_png
from datasets.readers.images.png_chunks import with_texts
from datasets.runs.provenance import DRAWN, NOTE, VARIANT, XMP, Provenance, provenance_of_png, with_provenance
from flows.command_line import app

MADE = Provenance(
    dataset="pets", recipe="0123456789ab", backbone="Zeichner é", backbone_sha256="ab" * 32, seed=3, sample_index=17
)
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
PIXELS = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
PNG = encode_png(PIXELS)


def test_a_png_says_what_made_it_and_keeps_its_pixels():
    marked = with_provenance(PNG, MADE)

    assert provenance_of_png(marked, name="it") == MADE
    assert np.array_equal(decode_png(marked, name="it"), PIXELS)
    assert with_provenance(PNG, MADE) == marked
    assert provenance_of_png(PNG, name="it") is None


@pytest.mark.parametrize(("edited", "term"), [(None, DRAWN), ("set/7.png", VARIANT)])
def test_other_programs_find_the_term_of_the_iptc_in_xmp(edited, term):
    made = Provenance(**{**vars(MADE), "edited_source_id": edited})
    with Image.open(io.BytesIO(with_provenance(PNG, made))) as image:
        image.load()
        texts = image.text

    packet = ElementTree.fromstring(texts[XMP].partition("?>")[2].rpartition("<?xpacket")[0])
    (description,) = packet.iter(f"{{{RDF}}}Description")
    assert description.get(f"{{{IPTC}}}DigitalSourceType") == term
    assert '"recipe": "0123456789ab"' in texts[NOTE]


def test_a_picture_that_is_written_anew_says_nothing_any_more():
    sink = io.BytesIO()
    Image.open(io.BytesIO(with_provenance(PNG, MADE))).save(sink, "PNG")

    assert provenance_of_png(sink.getvalue(), name="it") is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xd8 no PNG", "no PNG"),
        (with_provenance(PNG, MADE).replace(b'"seed": 3', b'"seed": 4'), "is damaged"),
        (with_texts(PNG, {NOTE: "{"}), "not readable JSON"),
        (with_texts(PNG, {NOTE: '{"maker": 1}'}), "another version"),
    ],
)
def test_what_cannot_be_read_is_named(data, message):
    with pytest.raises(ValueError, match=message):
        provenance_of_png(data, name="picture.png")


def test_the_command_tells_what_a_picture_says(tmp_path):
    (tmp_path / "marked.png").write_bytes(with_provenance(PNG, MADE))
    (tmp_path / "plain.png").write_bytes(PNG)
    (tmp_path / "text.png").write_text("no picture")

    marked, plain, text = (
        CliRunner().invoke(app, ["provenance", str(tmp_path / f"{name}.png")]) for name in ("marked", "plain", "text")
    )
    assert marked.exit_code == 0
    assert "says that it is synthetic" in marked.output
    assert "seed: 3" in marked.output
    assert plain.exit_code == 1
    assert "may be synthetic all the same" in plain.output
    assert text.exit_code == 2
    assert len(text.output.strip().splitlines()) == 1
