"""Masks that lie beside a table's images: white where an edit may redraw an image.

A mask is an image of the size of its own image, cut and resized as that is; what is 128 and above is white.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.readers.images.decoding import decode_bytes, fit_square, read_header
from datasets.readers.images.image_names import ImageNames

_WHITE = 128


@dataclass(frozen=True)
class TableMasks:
    """Reads the masks of a table's images.

    Attributes:
        files: Where they lie.
        masks: N names of mask files; "" where an image has none.
        images: N names of the images that they belong to.
        image_size: Side in pixels that images are brought to; None where they are taken as they are.
    """

    files: ImageNames
    masks: list[str]
    images: list[str]
    image_size: int | None

    def __call__(self, index: int) -> NDArray[np.bool_]:
        """(H, W) True where the image at this position may be redrawn.

        Raises:
            ValueError: It cannot be decoded, is of another size than its image, or marks nothing.
        """
        name, image = self.masks[index], self.images[index]
        mask = decode_bytes(self.files.read(name), mode="L", name=name)
        size = read_header(self.files.read(image), name=image).size
        if mask.size != size:
            raise ValueError(
                f"the mask {name} is {mask.width}x{mask.height} pixels, its image {image} {size[0]}x{size[1]}; make "
                "them equal."
            )
        fitted = mask if self.image_size is None else fit_square(mask, self.image_size)
        redrawn: NDArray[np.bool_] = np.asarray(fitted, dtype=np.uint8) >= _WHITE
        if not redrawn.any():
            raise ValueError(
                f"the mask {name} marks nothing of its image: no pixel is {_WHITE} or above, as white ones are; "
                "correct it, or leave its cell empty."
            )
        return redrawn
