"""Features of the real training images: computed once, and kept beside the dataset by recipe."""

import hashlib
import io
import logging

import numpy as np
from numpy.typing import NDArray

from datasets.storage.checked import DamagedError, read_checked, write_checked
from datasets.storage.store import Store
from minority.features import Extractor, Pixels


def real_features(extract: Extractor, images: NDArray[np.uint8], *, store: Store) -> NDArray[np.floating]:
    """Features of the real training images, from the store where they lie already.

    Args:
        extract: What makes them.
        images: (N, H, W, C) uint8.
        store: The dataset's own; features lie in `features/<recipe>-<digest of the images>.npy` with a checksum.
            Damaged ones, and those of earlier versions, which have none, are made again.

    Returns:
        (N, D). Pixels are never stored: they are the images themselves.

    Raises:
        OSError: The store cannot be read or written.
    """
    if isinstance(extract, Pixels):
        return extract(images)
    digest = hashlib.sha256(repr(images.shape).encode() + images.tobytes()).hexdigest()[:16]
    path = f"features/{extract.recipe}-{digest}.npy"
    try:
        stored: NDArray[np.floating] = np.load(io.BytesIO(read_checked(store, path)), allow_pickle=False)
        return stored
    except FileNotFoundError:
        pass
    except DamagedError as error:
        logging.getLogger(__name__).warning("%s The features are made again.", error)
    features = extract(images)
    content = io.BytesIO()
    np.save(content, features, allow_pickle=False)
    write_checked(store, path, content.getvalue())
    return features
