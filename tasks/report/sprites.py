"""Sheets of thumbnails: many small images in one file, so that a page of 20,000 opens a few files and not 20,000."""

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.report.pictures import reduced

#: Side of a sheet in pixels at most, but for images that are larger themselves.
_SIDE = 1024
#: Images a row of a sheet at most.
_MOST_A_ROW = 32
_QUALITY = 82
#: Longer side of images whose pixels are kept as they are; larger ones are photographs, stored with small losses.
LARGEST_PIXELATED = 32


class SpriteSheets:
    """Writes images into sheets, one after the other; only the sheet that is being filled is in memory.

    Args:
        name: What the files' names begin with, e.g. "gallery/real".
        write: Takes the name and the bytes of each finished sheet.
    """

    def __init__(self, name: str, write: Callable[[str, bytes], None]) -> None:
        self._name, self._write = name, write
        self._sheet: NDArray[np.uint8] | None = None
        self._tile = (1, 1)
        self._across = 1
        self._down = 1
        self._files: list[str] = []
        self.count = 0

    def add(self, image: NDArray[np.uint8]) -> int:
        """Add an (H, W, C) uint8 image, C = 1 or 3, of the shape of all before it. Returns its number, from 0 on."""
        thumbnail = reduced(image)
        if self.count == 0:
            self._tile = height, width = (thumbnail.shape[0], thumbnail.shape[1])
            self._across, self._down = (max(1, min(_MOST_A_ROW, _SIDE // side)) for side in (width, height))
        if self._sheet is None:
            height, width = self._tile
            self._sheet = np.zeros((self._down * height, self._across * width, 3), dtype=np.uint8)
        row, column = divmod(self.count % (self._across * self._down), self._across)
        height, width = self._tile
        self._sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = thumbnail
        self.count += 1
        if self.count % (self._across * self._down) == 0:
            self._finish()
        return self.count - 1

    def close(self) -> dict[str, object]:
        """Write the last sheet. Returns what a page must know: files, columns, rows, and a thumbnail's size."""
        if self._sheet is not None:
            self._finish()
        height, width = self._tile
        return {"files": self._files, "columns": self._across, "rows": self._down, "width": width, "height": height}

    @property
    def is_small(self) -> bool:
        """Whether the images are so small that their pixels are shown as they are."""
        return max(self._tile) <= LARGEST_PIXELATED

    def _finish(self) -> None:
        assert self._sheet is not None, "something was added"
        picture, data = Image.fromarray(self._sheet), io.BytesIO()
        if self.is_small:
            picture.save(data, format="PNG", optimize=True)
        else:
            picture.save(data, format="WEBP", quality=_QUALITY, method=4)
        file = f"{self._name}-{len(self._files):05d}.{'png' if self.is_small else 'webp'}"
        self._write(file, data.getvalue())
        self._files.append(file)
        self._sheet = None
