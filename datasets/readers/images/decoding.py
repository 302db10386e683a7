"""The one way from a foreign file to pixels: what a viewer would show, as 8-bit grey or RGB.

Orientation tags turn the picture. Transparent parts are laid over white. 16 bits are divided by 257 and rounded (of
colours with 16 bits Pillow hands on the upper eight). CMYK becomes RGB. Colour profiles of RGB and CMYK pictures are
converted to sRGB, those of grey pictures are not applied. Of several frames or pages the first is read. 32-bit pixels
are refused, since no header says what is black and white in them.
"""

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from datasets.readers.images.colour_profiles import in_srgb
from datasets.readers.images.image_files import open_plain
from datasets.readers.images.png_chunks import PNG, has_late_exif, without_long_text

# What PIL raises for files that are cut short, garbled, or no images at all.
DECODING_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError),
    *(RuntimeError, TypeError, LookupError, ArithmeticError),
)
# 256 MiB of RGB.
MAX_PIXELS = 2**28 // 3

# Of all that Pillow can read, no format that runs another program or fetches other files.
_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "JPEG2000", "AVIF", "TGA", "PCX", "SGI", "QOI")
_SEVERAL_FRAMES = {"GIF", "TIFF", "WEBP", "PNG", "AVIF"}
_GREY_MODES = {"1", "L", "LA", "La"}
_PALETTES = {"P", "PA"}
_COLOUR_MODES = {"RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}
_SIXTEEN_BITS = {"I;16", "I;16L", "I;16B", "I;16N"}
_SIDEWAYS = {5, 6, 7, 8}
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"

_T = TypeVar("_T")


@dataclass(frozen=True)
class Header:
    """What is known of an image without its pixels.

    Attributes:
        size: (width, height) in pixels, as the picture is shown.
        is_grey: Whether its mode, or every colour of its palette, is grey.
        num_frames: Frames or pages; the first is what is read.
    """

    size: tuple[int, int]
    is_grey: bool
    num_frames: int


def read_header(data: bytes, *, name: str) -> Header:
    """Read the header of an encoded image.

    Args:
        data: The file's content.
        name: What it is called in errors.

    Raises:
        ValueError: It is no image, or one that `decode_bytes` would refuse by its header.
    """
    return _read(BytesIO(data), name=name, work=_header)


def read_file_header(path: Path, *, folder: Path) -> Header:
    """Read the header of an image file; its pixels stay unread, except below a palette.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: As `decode_file`, as far as the header tells.
    """
    with _opened(path, folder) as file:
        return _read(file, name=str(path), work=_header)


def decode_file(path: Path, *, folder: Path, mode: str) -> Image.Image:
    """Decode an image file completely.

    Args:
        path: The file.
        folder: The folder of the set, which no link may lead out of.
        mode: "L" for grey or "RGB".

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no plain file or no image, is cut short or damaged, too large, of 32-bit pixels, or lies
            elsewhere; the message names it.
    """
    with _opened(path, folder) as file:
        data = file.read()
    return decode_bytes(data, mode=mode, name=str(path))


def decode_bytes(data: bytes, *, mode: str, name: str) -> Image.Image:
    """Decode an encoded image completely.

    Args:
        data: The file's content.
        mode: "L" for grey or "RGB".
        name: What it is called in errors.

    Returns:
        The image as it is shown, of that mode.

    Raises:
        ValueError: It is no image, is cut short or damaged, has more than MAX_PIXELS pixels or 32-bit ones.
    """
    return _read(BytesIO(data), name=name, work=_shown).convert(mode)


def is_image(path: Path, *, folder: Path) -> bool:
    """Whether the content of a file of a set begins as an image does, whatever its name."""
    try:
        with open_plain(path, folder) as file, Image.open(file, formats=_FORMATS):
            return True
    except (*DECODING_ERRORS, Image.DecompressionBombWarning):
        return False


def is_grey(images: Iterable[tuple[Header, Callable[[], object]]]) -> bool:
    """Whether a set is grey: where all its usable images are.

    Args:
        images: Each image's header, and what decodes it, raising ValueError or OSError where it is damaged. Pixels are
            decoded up to the first usable image in colour.
    """
    for header, decode in images:
        if header.is_grey:
            continue
        try:
            decode()
        except (ValueError, OSError):
            continue
        return False
    return True


def fit_square(image: Image.Image, image_size: int) -> Image.Image:
    """Cut the central square and bring it to image_size x image_size pixels by an antialiased Lanczos filter."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    if side == image_size:
        return square
    return square.resize((image_size, image_size), Image.Resampling.LANCZOS)


def to_pixels(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of an "L" or "RGB" image as uint8 (H, W, C), C = 1 or 3."""
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels


@contextmanager
def _opened(path: Path, folder: Path) -> Iterator[IO[bytes]]:
    try:
        with open_plain(path, folder) as file:
            yield file
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist; restore it or take it out of the list of images.") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); restore or remove it.") from error


def _read(file: IO[bytes], *, name: str, work: Callable[[Image.Image], _T]) -> _T:
    """Do `work` on the opened image; all that can be wrong with it is a ValueError in one line."""
    begin = file.read(len(_LFS_POINTER))
    if not begin:
        raise ValueError(f"{name} is an empty file and cannot be decoded as an image; replace or remove it.")
    if begin == _LFS_POINTER:
        raise ValueError(f"{name} is a Git LFS pointer in place of the image; run git lfs pull.")
    file.seek(0)
    try:
        try:
            return _work(file, work)
        except ValueError:
            if not begin.startswith(PNG):
                raise
        content, profile = without_long_text(file)
        return _work(content, work, profile=profile)
    except _RefusedError as error:
        raise ValueError(f"{name} {error}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"{name} has more pixels than the {MAX_PIXELS:,} that are decoded; make it smaller."
        ) from error
    except DECODING_ERRORS as error:
        reason = "unknown format or empty" if isinstance(error, UnidentifiedImageError) else str(error)
        raise ValueError(f"{name} cannot be decoded as an image ({reason}); replace or remove it.") from error


class _RefusedError(Exception):
    """A sound image that is not read; the message lacks its name."""


def _work(file: IO[bytes], work: Callable[[Image.Image], _T], *, profile: bytes | None = None) -> _T:
    with Image.open(file, formats=_FORMATS) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise _RefusedError(
                f"has {width} x {height} pixels, more than the {MAX_PIXELS:,} that are decoded; make it smaller."
            )
        if not (image.mode in _GREY_MODES | _PALETTES | _COLOUR_MODES or _depth(image)):
            raise _RefusedError(
                f"has pixels of mode {image.mode}, of which no header says what is black and white; save it as grey "
                "or RGB with 8 or 16 bits."
            )
        if profile is not None:
            image.info["icc_profile"] = profile
        return work(image)


def _header(image: Image.Image) -> Header:
    width, height = image.size
    # Pillow turns TIFFs itself, and gives their turned size.
    if image.format != "TIFF" and _orientation(image) in _SIDEWAYS:
        width, height = height, width
    frames = int(getattr(image, "n_frames", 1)) if image.format in _SEVERAL_FRAMES else 1
    return Header((width, height), _is_grey(image), frames)


def _orientation(image: Image.Image) -> int:
    """The EXIF tag, 1 where it is missing or damaged."""
    try:
        return int(_exif(image).get(ExifTags.Base.Orientation, 1))
    except DECODING_ERRORS:
        return 1


def _exif(image: Image.Image) -> Image.Exif:
    if isinstance(image, PngImagePlugin.PngImageFile) and image.fp is not None and not has_late_exif(image.fp):
        return Image.Image.getexif(image)  # PNG's own method decodes the pixels first
    return image.getexif()


def _is_grey(image: Image.Image) -> bool:
    if image.mode in _PALETTES:
        colours = np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
        return bool((colours == colours[:, :1]).all())
    return image.mode in _GREY_MODES or bool(_depth(image))


def _depth(image: Image.Image) -> int:
    """Bits of a grey image of more than 8, as its header has them; 0 for any other image."""
    if image.mode in _SIXTEEN_BITS:
        # Pillow hands on TIFFs of 12 bits as they are.
        return int(_tiff_tag(image, 258, 16))
    return 16 if image.mode == "I" and image.format in {"PNG", "PPM"} else 0


def _tiff_tag(image: Image.Image, tag: int, default: int) -> int:
    value = getattr(image, "tag_v2", {}).get(tag, default)
    return int(value[0] if isinstance(value, tuple) else value)


def _shown(image: Image.Image) -> Image.Image:
    """The image as a viewer shows it, "L" or "RGB"."""
    depth, is_negative = _depth(image), _tiff_tag(image, 262, 1) == 0
    if image.mode == "RGB" and any(";16" in str(tile.args) for tile in getattr(image, "tile", ())):
        key = image.info.get("transparency")
        if isinstance(key, tuple):
            image.info["transparency"] = tuple(value >> 8 for value in key)
    image.load()
    try:
        turned = ImageOps.exif_transpose(image)
    except DECODING_ERRORS:  # a damaged tag says nothing
        turned = image
    if depth:
        return _to_eight_bits(turned, depth=depth, is_negative=is_negative)
    is_grey = _is_grey(turned)
    if turned.mode in {"La", "RGBa"}:
        turned = turned.convert(turned.mode[:-1] + "A")
    if not turned.has_transparency_data:
        return turned.convert("L") if is_grey else in_srgb(turned)
    layer = turned.convert("RGBA")
    opacity = layer.getchannel("A")
    colours = layer.convert("RGB")
    if not is_grey:
        colours.info["icc_profile"] = turned.info.get("icc_profile")
        colours = in_srgb(colours)
    colours.putalpha(opacity)
    flat = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), colours)
    return flat.convert("RGB").convert("L" if is_grey else "RGB")


def _to_eight_bits(image: Image.Image, *, depth: int, is_negative: bool) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    white = 2**depth - 1
    shades = np.clip((values * 255 + white // 2) // white, 0, 255)
    if is_negative:
        shades = 255 - shades
    if isinstance(image.info.get("transparency"), int):
        shades = np.where(values == image.info["transparency"], 255, shades)
    return Image.fromarray(shades.astype(np.uint8))
