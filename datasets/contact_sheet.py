"""A picture of pictures: rows of images with a caption each."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

_GAP, _CAPTION = 2, 14
_SMALLEST_SIDE = 48
_PAPER, _INK = (255, 255, 255), (40, 40, 40)


def contact_sheet(
    rows: Sequence[tuple[str, Sequence[NDArray[np.uint8]]]], *, image_shape: tuple[int, int, int], columns: int
) -> bytes:
    """Draw rows of images as PNG bytes.

    Args:
        rows: Caption and images, uint8 (H, W, C), of each row; images beyond `columns` are left out.
        image_shape: (H, W, C) of every image; small ones are enlarged by a whole number, so that pixels stay squares.
        columns: Places in a row.
    """
    scale = max(1, -(-_SMALLEST_SIDE // max(image_shape[:2])))
    height, width = image_shape[0] * scale, image_shape[1] * scale
    row_height = _CAPTION + height + _GAP
    longest = max((len(caption) for caption, _ in rows), default=1)
    sheet = Image.new(
        "RGB", (max(columns * (width + _GAP), 7 * longest) + _GAP, max(1, len(rows)) * row_height + _GAP), _PAPER
    )
    pen = ImageDraw.Draw(sheet)
    for number, (caption, images) in enumerate(rows):
        top = _GAP + number * row_height
        pen.text((_GAP, top), caption.encode("ascii", "replace").decode(), fill=_INK)
        for column, pixels in enumerate(images[:columns]):
            tile = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
            tile = tile.resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(tile, (_GAP + column * (width + _GAP), top + _CAPTION))
    sink = io.BytesIO()
    sheet.save(sink, format="PNG")
    return sink.getvalue()
