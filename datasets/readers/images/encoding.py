"""Images as bytes and back: PNG and WebP keep every pixel, JPEG does not."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.readers.images.decoding import DECODING_ERRORS

EXTENSIONS = ("jpg", "png", "webp")
LOSSLESS = ("png", "webp")
_SETTINGS: dict[str, dict[str, Any]] = {
    "png": {"format": "PNG", "compress_level": 6},
    "webp": {"format": "WEBP", "lossless": True, "quality": 50, "method": 4, "exact": True},
    "jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},  # colour as fine as brightness
}


def encode_image(pixels: NDArray[np.uint8], extension: str) -> bytes:
    """Encode an image; equal pixels are equal bytes under one version of Pillow and its libraries.

    Args:
        pixels: uint8 (H, W, C) in [0, 255], C = 1 (grey) or 3 (RGB).
        extension: "png" or "webp" (without loss), or "jpg" (quality 95). WebP knows no grey images.

    Raises:
        ValueError: Another shape, type or extension.
    """
    if extension not in _SETTINGS:
        raise ValueError(f"images are encoded as {', '.join(EXTENSIONS)}, got {extension!r}.")
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in {1, 3} or 0 in pixels.shape:
        raise ValueError(f"pixels must be uint8 (H, W, 1) or (H, W, 3), got {pixels.dtype} {pixels.shape}.")
    if extension == "webp" and pixels.shape[2] == 1:
        raise ValueError("WebP has no grey images and would give them back as RGB; use png for grey images.")
    grey_or_rgb = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    sink = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(grey_or_rgb)).save(sink, **_SETTINGS[extension])
    return sink.getvalue()


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode an image without loss; equal pixels are equal bytes under one version of Pillow and zlib.

    Args:
        pixels: uint8 (H, W, C) in [0, 255], C = 1 (grey) or 3 (RGB).

    Raises:
        ValueError: Another shape or type.
    """
    return encode_image(pixels, "png")


def decode_image(data: bytes, extension: str, *, name: str) -> NDArray[np.uint8]:
    """Decode bytes of one format to uint8 (H, W, C), C = 1 for grey and 3 for all else.

    Args:
        data: The encoded image.
        extension: "png", "webp" or "jpg".
        name: What it is called in errors.

    Raises:
        ValueError: The bytes are no readable image of that format; the message gives `name`.
    """
    return _decode(data, image_format=_SETTINGS[extension]["format"], name=name)


def decode_png(data: bytes, *, name: str) -> NDArray[np.uint8]:
    """Decode PNG bytes to uint8 (H, W, C), C = 1 for grey and 3 for all else.

    Raises:
        ValueError: The bytes are no readable PNG; the message gives `name`.
    """
    return _decode(data, image_format="PNG", name=name)


def _decode(data: bytes, *, image_format: str, name: str) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(data), formats=[image_format]) as image:
            pixels = np.asarray(image.convert("L" if image.mode in {"1", "L"} else "RGB"), dtype=np.uint8)
    except DECODING_ERRORS as error:
        raise ValueError(f"{name} is not a readable {image_format} ({error}); it is damaged.") from error
    return pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels
