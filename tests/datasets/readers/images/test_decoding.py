"""Pixels are what a viewer shows, whatever the file is like; each file is made here, most of them byte by byte."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from datasets.readers.images.decoding import MAX_PIXELS, decode_bytes, decode_file, read_file_header, read_header

RAMP = (np.arange(24, dtype=np.uint16) * 2700).reshape(4, 6)  # 0 ... 62100
SHADES = (RAMP.astype(float) / 257).round().astype(np.uint8)


def saved(image, image_format="PNG", **settings):
    sink = io.BytesIO()
    image.save(sink, format=image_format, **settings)
    return sink.getvalue()


def shown(data, mode="RGB"):
    return np.asarray(decode_bytes(data, mode=mode, name="it"))


def grey_and_shown(data):
    header = read_header(data, name="it")
    return header.is_grey, shown(data, "L" if header.is_grey else "RGB")


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, *, depth, colour, rows, extra=b"", late=b""):
    """A PNG by hand: rows are the bytes of every line."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [chunk(b"IHDR", header), extra, chunk(b"IDAT", pixels), late, chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff16(values, *, order, bits=16, black_is_zero=True):
    """An uncompressed grey TIFF by hand, of 16-bit words in an order, or of packed 12 bits."""
    end = "<" if order == "II" else ">"
    height, width = values.shape
    if bits == 16:
        data = values.astype(f"{end}u2").tobytes()
    else:
        pairs = values.astype(int).reshape(-1, 2)
        data = b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in pairs)
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, int(black_is_zero)), (273, 8), (277, 1)]
    tags += [(278, height), (279, len(data))]
    entries = b"".join(struct.pack(f"{end}HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack(f"{end}H", len(tags)) + entries + bytes(4)
    return order.encode() + struct.pack(f"{end}HI", 42, 8 + len(data)) + data + directory


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_tag_turns_pixels_and_size(orientation, image_format):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = (255, 0, 0)  # a corner that tells all eight apart
    upright[8:, :16] = (0, 0, 255)
    undo = {1: (), 2: (0,), 3: (3,), 4: (1,), 5: (5,), 6: (2,), 7: (6,), 8: (4,)}[orientation]
    stored = Image.fromarray(upright)
    for turn in undo:
        stored = stored.transpose(Image.Transpose(turn))
    tag = Image.Exif()
    tag[0x0112] = orientation
    lossless = (
        {"lossless": True}
        if image_format == "WEBP"
        else {"quality": 100, "subsampling": 0}
        if image_format == "JPEG"
        else {}
    )

    data = saved(stored, image_format, exif=tag, **lossless)

    assert read_header(data, name="it").size == (32, 16)
    assert np.abs(shown(data).astype(int) - upright).max() <= (4 if image_format == "JPEG" else 0)


def test_an_orientation_behind_the_pixels_of_a_png_counts():
    tag = Image.Exif()
    tag[0x0112] = 6
    rows = [bytes([10, 20, 30]), bytes([40, 50, 60])]
    late = chunk(b"eXIf", tag.tobytes().removeprefix(b"Exif\0\0"))

    data = png(3, 2, depth=8, colour=0, rows=rows, late=late)

    assert read_header(data, name="it").size == (2, 3)
    assert shown(data, "L").tolist() == [[40, 10], [50, 20], [60, 30]]


@pytest.mark.filterwarnings("ignore:.*EXIF:UserWarning")
def test_a_damaged_orientation_tag_says_nothing():
    data = saved(Image.new("RGB", (3, 2), "red"), exif=b"Exif\0\0MM\0*" + b"\xff" * 9)

    assert read_header(data, name="it").size == (3, 2)
    assert shown(data)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    "data",
    [
        png(6, 4, depth=16, colour=0, rows=[row.astype(">u2").tobytes() for row in RAMP]),
        tiff16(RAMP, order="II"),
        tiff16(RAMP, order="MM"),
        b"P5 6 4 65535\n" + RAMP.astype(">u2").tobytes(),
    ],
    ids=["png", "little-endian tiff", "big-endian tiff", "pgm"],
)
def test_sixteen_bits_are_divided_by_257(data):
    is_grey, pixels = grey_and_shown(data)

    assert is_grey
    np.testing.assert_array_equal(pixels, SHADES)


def test_white_may_be_zero_and_twelve_bits_are_scaled_by_their_own_white():
    np.testing.assert_array_equal(shown(tiff16(RAMP, order="II", black_is_zero=False), "L"), 255 - SHADES)
    twelve = np.array([[0, 4095], [2048, 1000]])
    assert shown(tiff16(twelve, order="II", bits=12), "L").tolist() == [[0, 255], [128, 62]]


def test_colours_of_sixteen_bits_keep_their_shades():
    colours = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=-1)
    data = png(6, 4, depth=16, colour=2, rows=[row.astype(">u2").tobytes() for row in colours])

    is_grey, pixels = grey_and_shown(data)

    assert not is_grey
    assert np.abs(pixels - colours / 257).max() <= 1


@pytest.mark.parametrize(("mode", "fill"), [("F", 0.5), ("I", 70_000)])
def test_thirty_two_bits_are_refused_by_name_and_mode(mode, fill):
    data = saved(Image.new(mode, (2, 2), fill), "TIFF")

    for read in (lambda: read_header(data, name="x.tif"), lambda: decode_bytes(data, mode="L", name="x.tif")):
        with pytest.raises(ValueError, match=f"^x.tif has pixels of mode {mode}, .* save it as grey or RGB"):
            read()


def test_a_palette_with_transparency_lies_on_white():
    palette = Image.new("P", (3, 1))
    palette.putpalette([200, 0, 0, 0, 0, 200, 0, 0, 0])
    palette.putdata([0, 1, 2])

    is_grey, pixels = grey_and_shown(saved(palette, transparency=bytes([255, 0, 128])))

    assert not is_grey
    assert pixels[0].tolist() == [[200, 0, 0], [255, 255, 255], [127, 127, 127]]


def test_a_palette_of_greys_is_grey():
    palette = Image.new("P", (2, 1))
    palette.putpalette([9, 9, 9, 77, 77, 77])
    palette.putdata([1, 0])

    is_grey, pixels = grey_and_shown(saved(palette))

    assert is_grey
    assert pixels.tolist() == [[77, 9]]


def test_a_gif_shows_its_first_frame_on_white():
    frames = [Image.new("RGBA", (2, 1), colour) for colour in ("red", "lime", "blue")]
    frames[0].putpixel((1, 0), (0, 0, 0, 0))
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:], disposal=2)

    assert read_header(data, name="it").num_frames == 3
    assert shown(data)[0].tolist() == [[255, 0, 0], [255, 255, 255]]


@pytest.mark.parametrize(("mode", "image_format"), [("RGBA", "WEBP"), ("RGBA", "PNG"), ("RGBA", "TIFF")])
def test_alpha_lets_white_through(mode, image_format):
    image = Image.new(mode, (3, 1), (0, 0, 200, 255))
    image.putpixel((1, 0), (90, 90, 90, 0))
    image.putpixel((2, 0), (0, 0, 0, 51))
    settings = {"lossless": True, "exact": True} if image_format == "WEBP" else {}

    pixels = shown(saved(image, image_format, **settings))

    assert pixels[0].tolist() == [[0, 0, 200], [255, 255, 255], [204, 204, 204]]


def test_grey_with_alpha_stays_grey():
    image = Image.new("LA", (3, 1), (40, 255))
    image.putpixel((1, 0), (40, 0))
    image.putpixel((2, 0), (0, 128))

    is_grey, pixels = grey_and_shown(saved(image))

    assert is_grey
    assert pixels.tolist() == [[40, 255, 127]]


@pytest.mark.parametrize(
    ("depth", "colour", "row", "key", "expected"),
    [
        (8, 0, bytes([7, 8]), (7,), [[255] * 3, [8] * 3]),
        (8, 2, bytes([1, 2, 3, 1, 2, 4]), (1, 2, 3), [[255] * 3, [1, 2, 4]]),
        (16, 0, struct.pack(">2H", 514, 515), (514,), [[255] * 3, [2] * 3]),
        (16, 2, struct.pack(">6H", 256, 512, 768, 2560, 512, 768), (256, 512, 768), [[255] * 3, [10, 2, 3]]),
        (1, 0, bytes([0b01000000]), (0,), [[255] * 3, [255] * 3]),
    ],
    ids=["grey", "rgb", "16-bit grey", "16-bit rgb", "1-bit"],
)
def test_a_colour_that_stands_for_nothing_is_white(depth, colour, row, key, expected):
    extra = chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))

    assert shown(png(2, 1, depth=depth, colour=colour, rows=[row], extra=extra))[0].tolist() == expected


def test_one_bit_is_black_and_white():
    is_grey, pixels = grey_and_shown(png(2, 1, depth=1, colour=0, rows=[bytes([0b01000000])]))

    assert is_grey
    assert pixels.tolist() == [[0, 255]]


def test_cmyk_of_adobe_is_not_inverted():
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # red ink
    data = saved(cmyk, "JPEG", quality=95)
    assert b"Adobe" in data

    assert np.abs(shown(data)[8, 8].astype(int) - [254, 0, 0]).max() <= 4


def wide_gamut():
    """The profile of a screen whose primaries lie further out than sRGB's, by its tags (ICC.1:2022, 9.2)."""

    def fixed(*values):
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    def xyz(*values):
        return b"XYZ \0\0\0\0" + fixed(*values)

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) + b"\0\0"
    tags = {  # Adobe RGB (1998), adapted to D50
        b"rXYZ": xyz(0.60974, 0.31111, 0.01947),
        b"gXYZ": xyz(0.20528, 0.62567, 0.06087),
        b"bXYZ": xyz(0.14919, 0.06322, 0.74457),
        b"wtpt": xyz(0.9642, 1.0, 0.8249),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"wide\0" + bytes(80),
        b"cprt": b"text\0\0\0\0none\0\0\0\0",
    }
    at, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        padded = content + bytes(-len(content) % 4)
        table += name + struct.pack(">II", at + len(body), len(content))
        body += padded
    size = at + len(body)
    header = struct.pack(">I", size) + b"lcms" + struct.pack(">I", 0x02100000) + b"mntrRGB XYZ " + bytes(12)
    header += b"acsp" + bytes(28) + fixed(0.9642, 1.0, 0.8249) + bytes(48)
    return header + struct.pack(">I", len(tags)) + table + body


def test_a_wide_profile_is_converted_and_srgb_is_left_alone():
    image = Image.new("RGB", (2, 1), (180, 60, 60))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

    plain = shown(saved(image, icc_profile=srgb))
    wide = shown(saved(image, icc_profile=wide_gamut()))

    assert plain[0, 0].tolist() == [180, 60, 60]
    # Worked out by hand: linear = (v / 255)^2.2, by the primaries' matrices to linear sRGB, then its curve.
    linear = (np.array([180, 60, 60]) / 255) ** 2.2
    adobe = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
    own = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
    to_srgb = np.linalg.solve(own, adobe @ linear).clip(0, 1)
    curve = np.where(to_srgb <= 0.0031308, 12.92 * to_srgb, 1.055 * to_srgb ** (1 / 2.4) - 0.055)
    assert np.abs(wide[0, 0] - 255 * curve).max() <= 2
    assert wide[0, 0, 0] > 195


def test_a_profile_of_other_colours_or_none_at_all_is_passed_over():
    for profile in (b"no profile", wide_gamut()[:200]):
        assert shown(saved(Image.new("RGB", (1, 1), (9, 99, 199)), icc_profile=profile))[0, 0].tolist() == [9, 99, 199]
    assert shown(saved(Image.new("L", (1, 1), 99), icc_profile=wide_gamut()), "L").tolist() == [[99]]


def test_long_texts_and_profiles_of_a_png_do_not_matter():
    info = PngInfo()
    info.add_text("parameters", "x" * 3_000_000, zip=True)
    info.add_itxt("more", "y" * 2_000_000, zip=True)
    long_profile = wide_gamut() + bytes(2_000_000)
    colour = Image.new("RGB", (2, 1), (180, 60, 60))

    with_text = saved(colour, pnginfo=info)
    with_profile = saved(colour, pnginfo=info, icc_profile=struct.pack(">I", len(long_profile)) + long_profile[4:])

    assert read_header(with_text, name="it").size == (2, 1)
    assert shown(with_text)[0, 0].tolist() == [180, 60, 60]
    assert shown(with_profile)[0, 0].tolist() == shown(saved(colour, icc_profile=wide_gamut()))[0, 0].tolist()


def test_a_text_behind_the_pixels_does_not_matter():
    late = chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"x" * 3_000_000))

    assert shown(png(2, 1, depth=8, colour=0, rows=[bytes([3, 4])], late=late), "L").tolist() == [[3, 4]]


@pytest.mark.parametrize("side", [9_500, 14_000, 60_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_declares_too_many_pixels_is_never_decoded(side):
    assert side * side > MAX_PIXELS
    data = png(side, side, depth=8, colour=0, rows=[])

    for read in (lambda: read_header(data, name="bomb.png"), lambda: decode_bytes(data, mode="L", name="bomb.png")):
        with pytest.raises(ValueError, match=r"^bomb.png has .*more .*89,478,485 that are decoded; make it smaller\.$"):
            read()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is an empty file"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
            "Git LFS pointer .* run git lfs pull",
        ),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unknown format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unknown format"),
    ],
    ids=["empty", "lfs", "postscript", "svg"],
)
def test_what_is_no_image_is_named_as_what_it_is(tmp_path, content, reason):
    path = tmp_path / "a.png"
    path.write_bytes(content)

    for read in (lambda: read_file_header(path, folder=tmp_path), lambda: decode_file(path, folder=tmp_path, mode="L")):
        with pytest.raises(ValueError, match=rf"a\.png .*{reason}") as caught:
            read()
        assert "\n" not in str(caught.value)


def test_a_pipe_in_place_of_an_image_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")

    with pytest.raises(ValueError, match=r"a\.png is a pipe or a device"):
        decode_file(tmp_path / "a.png", folder=tmp_path, mode="RGB")


def test_a_file_beyond_all_bounds_is_not_read(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(2**33)

    with pytest.raises(ValueError, match=r"a\.png has 8,589,934,592 bytes, more than the 268,435,456"):
        decode_file(tmp_path / "a.png", folder=tmp_path, mode="RGB")
