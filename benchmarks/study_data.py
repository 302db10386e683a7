"""The study's images in small files of their own, for machines that have no room or no way for the whole set.

Images are lossless WebP strips in a zip.

Shapes: N images, H x W pixels, C channels.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from minority.downstream.data import DownstreamData, LabelledImages

_STRIP = 200  # images a strip: WebP ends at 16,383 pixels
_PARTS = ("train", "validation", "test")


def save_data(path: Path, data: DownstreamData) -> None:
    """Write the real images into one file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part_path = path.with_name(path.name + ".part")
    with zipfile.ZipFile(part_path, "w", zipfile.ZIP_STORED) as archive:
        for name in _PARTS:
            write_images(archive, name, getattr(data, name))
        names = {"class_names": data.class_names, "group_names": data.group_names, "sensitive": dict(data.sensitive)}
        archive.writestr("names.json", json.dumps(names))
    part_path.replace(path)


def load_data(path: Path) -> DownstreamData:
    """Read what `save_data` wrote."""
    with zipfile.ZipFile(path) as archive:
        names = json.loads(archive.read("names.json"))
        parts = {name: read_images(archive, name) for name in _PARTS}
    return DownstreamData(
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
        class_names=tuple(names["class_names"]),
        group_names=tuple(names["group_names"]),
        sensitive=names["sensitive"],
    )


def save_images(path: Path, images: LabelledImages) -> None:
    """Write images, labels and groups into one file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part_path = path.with_name(path.name + ".part")
    with zipfile.ZipFile(part_path, "w", zipfile.ZIP_STORED) as archive:
        write_images(archive, "images", images)
    part_path.replace(path)


def load_images(path: Path) -> LabelledImages:
    """Read what `save_images` wrote."""
    with zipfile.ZipFile(path) as archive:
        return read_images(archive, "images")


def write_images(archive: zipfile.ZipFile, name: str, images: LabelledImages) -> None:
    """Put images into an open archive."""
    count, height, width, channels = images.images.shape
    size = max(1, min(_STRIP, 16_000 // height))
    for start in range(0, count, size):
        strip = images.images[start : start + size].reshape(-1, width, channels)
        picture = Image.fromarray(strip[:, :, 0] if channels == 1 else strip).convert("RGB")
        content = io.BytesIO()
        picture.save(content, "WEBP", lossless=True, quality=50, method=2)
        archive.writestr(f"{name}/{start:06d}.webp", content.getvalue())
    arrays = {"labels": images.labels, "groups": images.groups, "shape": np.array(images.images.shape)}
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    archive.writestr(f"{name}/labels.npz", content.getvalue())


def read_images(archive: zipfile.ZipFile, name: str) -> LabelledImages:
    """Read what `write_images` put there."""
    with np.load(io.BytesIO(archive.read(f"{name}/labels.npz")), allow_pickle=False) as content:
        labels, groups, shape = content["labels"], content["groups"], tuple(content["shape"].tolist())
    images = np.empty(shape, dtype=np.uint8)
    done = 0
    for member in sorted(m for m in archive.namelist() if m.startswith(f"{name}/") and m.endswith(".webp")):
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
