import gc
import io
import tarfile

import numpy as np
import pytest
import webdataset as wds
from hypothesis import given
from hypothesis import strategies as st

from datasets.readers.images.encoding import decode_image, encode_image
from datasets.runs.shards import Sample, decode_png, encode_png, read_members, read_tar, tar_bytes
from datasets.runs.tar_writing import tar_of_members

PIXELS = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
SAMPLE = Sample(key="a", image=PIXELS, label=3, record={"group": "x"})


def tar_of(*members):
    """A tar of (name, content) pairs; a TarInfo in a name's place is taken as it is."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if info.isreg():
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return sink.getvalue()


@given(
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    seed=st.integers(0, 1000),
)
def test_an_image_survives_png_exactly(channels, height, width, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)

    encoded = encode_png(pixels)

    np.testing.assert_array_equal(decode_png(encoded, name="x"), pixels)
    assert encode_png(pixels.copy()) == encoded


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 1)), np.zeros((0, 8, 1), np.uint8)],
)
def test_pixels_of_another_shape_or_type_are_refused(pixels):
    with pytest.raises(ValueError, match="pixels must be uint8"):
        encode_png(pixels)


def test_a_tar_does_not_depend_on_order_or_time(monkeypatch):
    samples = [Sample(key=key, image=PIXELS, label=0, record={"b": 1, "a": [1.5, None]}) for key in "cab"]

    tar = tar_bytes(samples)
    monkeypatch.setattr("time.time", lambda: 1e9)

    assert tar_bytes(reversed(samples)) == tar
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        members = opened.getmembers()
    assert [member.name for member in members[:4]] == ["a.cls", "a.json", "a.png", "b.cls"]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}


def test_samples_come_back_as_they_went_in():
    (sample,) = read_tar(tar_bytes([SAMPLE]))

    assert (sample.key, sample.label, sample.record) == ("a", 3, {"group": "x"})
    np.testing.assert_array_equal(decode_png(sample.png(), name="a"), PIXELS)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its file open
def test_bare_webdataset_decodes_a_tar(tmp_path):
    path = tmp_path / "x-000000.tar"
    path.write_bytes(tar_bytes([SAMPLE, Sample(key="b", image=np.stack([PIXELS[..., 0]] * 3, 2), label=1, record={})]))

    samples = list(wds.WebDataset(str(path), shardshuffle=False).decode("rgb8"))
    gc.collect()

    assert [sample["__key__"] for sample in samples] == ["a", "b"]
    assert [sample["cls"] for sample in samples] == [3, 1]
    assert samples[0]["json"] == {"group": "x"}
    np.testing.assert_array_equal(samples[0]["png"][..., 0], PIXELS[..., 0])


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([SAMPLE, SAMPLE], "the key 'a' twice"),
        ([Sample(key="a.b", image=PIXELS, label=0, record={})], "no dots or slashes"),
        ([Sample(key="../a", image=PIXELS, label=0, record={})], "no dots or slashes"),
        ([Sample(key="", image=PIXELS, label=0, record={})], "use 1 to 90 letters"),
        ([Sample(key="a", image=PIXELS, label=-1, record={})], "sample a has the label -1"),
        ([Sample(key="a", image=PIXELS, label=0, record={"x": float("nan")})], "cannot be written as JSON"),
        ([Sample(key="a", image=PIXELS, label=0, record={"x": {1}})], "cannot be written as JSON"),
    ],
)
def test_a_sample_that_no_reader_could_open_is_not_written(samples, message):
    with pytest.raises(ValueError, match=message):
        tar_bytes(samples)


def special(name, kind):
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = "/etc/passwd"
    return info


@pytest.mark.parametrize(
    "name",
    [
        "../a.png",
        "/etc/a.png",
        "b/../../a.png",
        "folder/a.png",
        "a",
        ".hidden.png",
        special("a.png", tarfile.SYMTYPE),
        special("a.png", tarfile.LNKTYPE),
        special("a.png", tarfile.DIRTYPE),
        special("a.png", tarfile.CHRTYPE),
        special("a.png", tarfile.FIFOTYPE),
    ],
    ids=lambda name: name if isinstance(name, str) else f"type {name.type.decode()}",
)
def test_a_member_that_could_leave_the_tar_is_refused(name):
    with pytest.raises(ValueError, match=r"x\.tar is refused: member .* is no plain file named <key>\.<field>"):
        read_members(tar_of((name, b"x")), name="x.tar")


def test_a_doubled_member_is_refused():
    with pytest.raises(ValueError, match=r"member 'a\.cls' comes twice"):
        read_members(tar_of(("a.cls", b"1"), ("a.cls", b"2")), name="x.tar")


@pytest.mark.parametrize(
    ("field", "content", "message"),
    [
        ("png", None, "sample a lacks its png"),
        ("cls", None, "sample a lacks its cls"),
        ("cls", b"cat", r"a\.cls is b'cat', expected a class index"),
        ("json", b"{", r"a\.json is not readable JSON"),
        ("json", b"[1]", r"a\.json must hold a JSON object, got list"),
        ("png", encode_png(PIXELS)[:40], r"a\.png is not a readable PNG"),
        ("png", b"GIF89a", r"a\.png is not a readable PNG"),
    ],
)
def test_a_damaged_sample_is_named(field, content, message):
    fields = {"cls": b"3", "json": b"{}", "png": encode_png(PIXELS)} | {field: content}
    tar = tar_of(*((f"a.{name}", data) for name, data in fields.items() if data is not None))

    with pytest.raises(ValueError, match=message):
        list(read_tar(tar))


def test_a_tar_whose_header_is_damaged_or_whose_end_is_missing_is_refused():
    tar = tar_bytes([SAMPLE, Sample(key="b", image=PIXELS, label=0, record={})])
    header = tar.index(b"b.cls")

    with pytest.raises(ValueError, match=rf"breaks off at byte {header}"):
        read_members(tar.replace(b"b.cls", b"c.cls"), name="x.tar")
    with pytest.raises(ValueError, match=rf"breaks off at byte {header}"):
        read_members(tar[:header], name="x.tar")
    with pytest.raises(ValueError, match="is refused"):
        read_members(b"", name="x.tar")


@given(st.data())
def test_damage_is_a_clear_error_or_harmless_but_never_another_exception(data):
    tar = bytearray(tar_bytes([SAMPLE]))
    for _ in range(data.draw(st.integers(1, 3))):
        tar[data.draw(st.integers(0, 5000))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(tar)))

    problem = ""
    try:
        list(read_tar(bytes(tar[:cut]), name="x.tar"))
    except ValueError as error:
        problem = str(error)
    assert not problem or problem.startswith("x.tar")


@given(st.lists(st.binary(max_size=1100), max_size=12))
def test_our_tars_are_those_of_tarfile_byte_for_byte(contents):
    members = [(f"key-{number}.png", content) for number, content in enumerate(contents)]
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))

    assert tar_of_members(members) == sink.getvalue()


@pytest.mark.parametrize("extension", ["webp", "jpg"])
def test_other_formats_come_back_as_their_own(extension):
    colours = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    sample = Sample(key="a", image=colours, label=1, record={}, extension=extension)

    (read,) = read_tar(tar_bytes([sample]))

    assert read.extension == extension
    pixels = decode_image(read.encoded(), extension, name="a")
    assert np.array_equal(pixels, colours) == (extension == "webp")
    with pytest.raises(ValueError, match=rf"sample a is a {extension} file; use encoded"):
        read.png()


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (Sample(key="a", image=PIXELS, label=0, record={}, extension="webp"), "WebP has no grey images"),
        (Sample(key="a", image=PIXELS, label=0, record={}, extension="gif"), "has the extension 'gif'; use jpg"),
    ],
)
def test_a_format_that_would_change_the_image_is_refused(sample, message):
    with pytest.raises(ValueError, match=message):
        tar_bytes([sample])
    with pytest.raises(ValueError, match="images are encoded as jpg, png, webp, got 'gif'"):
        encode_image(PIXELS, "gif")


def test_a_sample_with_two_images_is_refused():
    fields = {"cls": b"1", "json": b"{}", "png": encode_png(PIXELS), "jpg": b""}

    with pytest.raises(ValueError, match="sample a has the images jpg and png"):
        list(read_tar(tar_of(*((f"a.{name}", content) for name, content in fields.items()))))
