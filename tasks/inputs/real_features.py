"""Features of the real training images: computed once, and kept beside the dataset by recipe."""

import hashlib
import io

import numpy as np
from numpy.typing import NDArray

from datasets.storage.store import Store
from minority.features import Extractor, Pixels


def real_features(extract: Extractor, images: NDArray[np.uint8], *, store: Store) -> NDArray[np.floating]:
    """Features of the real training images, from the store where they lie already.

    Args:
        extract: What makes them.
        images: (N, H, W, C) uint8.
        store: The dataset's own; features lie in `features/<recipe>-<digest of the images>.npy`.

    Returns:
        (N, D). Pixels are never stored: they are the images themselves.

    Raises:
        OSError: The store cannot be read or written.
    """
    if isinstance(extract, Pixels):
        return extract(images)
    digest = hashlib.sha256(repr(images.shape).encode() + images.tobytes()).hexdigest()[:16]
    path = f"features/{extract.recipe}-{digest}.npy"
    if store.exists(path):
        stored: NDArray[np.floating] = np.load(io.BytesIO(store.read(path)), allow_pickle=False)
        if len(stored) == len(images):
            return stored
    features = extract(images)
    content = io.BytesIO()
    np.save(content, features, allow_pickle=False)
    store.write(path, content.getvalue())
    return features
