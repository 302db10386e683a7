"""What a draw keeps on the way: images as lossless WebP strips in a zip, and arrays.

Shapes: N images, H x W pixels, C channels.
"""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from minority.downstream.data import LabelledImages

_STRIP = 200  # images a strip: WebP ends at 16,383 pixels


def save_images(path: Path, images: LabelledImages) -> None:
    """Write images, labels and groups into one file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part_path = path.with_name(path.name + ".part")
    with zipfile.ZipFile(part_path, "w", zipfile.ZIP_STORED) as archive:
        _write(archive, images)
    part_path.replace(path)


def load_images(path: Path) -> LabelledImages:
    """Read what `save_images` wrote."""
    with zipfile.ZipFile(path) as archive:
        return _read(archive)


def _write(archive: zipfile.ZipFile, images: LabelledImages) -> None:
    count, height, width, channels = images.images.shape
    size = max(1, min(_STRIP, 16_000 // height))
    for start in range(0, count, size):
        strip = images.images[start : start + size].reshape(-1, width, channels)
        picture = Image.fromarray(strip[:, :, 0] if channels == 1 else strip).convert("RGB")
        content = io.BytesIO()
        picture.save(content, "WEBP", lossless=True, quality=50, method=2)
        archive.writestr(f"images/{start:06d}.webp", content.getvalue())
    arrays = {"labels": images.labels, "groups": images.groups, "shape": np.array(images.images.shape)}
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    archive.writestr("images/labels.npz", content.getvalue())


def _read(archive: zipfile.ZipFile) -> LabelledImages:
    with np.load(io.BytesIO(archive.read("images/labels.npz")), allow_pickle=False) as content:
        labels, groups, shape = content["labels"], content["groups"], tuple(content["shape"].tolist())
    images = np.empty(shape, dtype=np.uint8)
    done = 0
    for member in sorted(m for m in archive.namelist() if m.endswith(".webp")):
        with Image.open(io.BytesIO(archive.read(member))) as picture:
            strip = np.asarray(picture.convert("RGB")).reshape(-1, *shape[1:3], 3)[..., : shape[3]]
        images[done : done + len(strip)] = strip
        done += len(strip)
    return LabelledImages(images, labels, groups)


def save_arrays(path: Path, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Write an .npz whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    part.replace(path)


def load_arrays(path: Path) -> dict[str, NDArray[np.generic]]:
    """Read what `save_arrays` wrote."""
    with np.load(path, allow_pickle=False) as content:
        return {name: content[name] for name in content.files}
