"""ImageNet's layout: folders named by synset, one a class (Russakovsky et al., IJCV 2015).

<folder>/<synset>/*.JPEG            e.g. n01440764/n01440764_10026.JPEG; or below <folder>/train, <folder>/val
<folder>/LOC_synset_mapping.txt     "n01440764 tench, Tinca tinca" a line; may be absent, or lie one folder up
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.readers.images.decoding import decode_file, fit_square, to_pixels
from datasets.readers.imageset import ImageSet, Problem

NO_IMAGE = "file that is no image"
LICENCE = "ImageNet, O. Russakovsky et al., IJCV 2015; for non-commercial research and education only."
_SYNSET = re.compile(r"n\d{8}")
_SUFFIXES = {".jpeg", ".jpg", ".png"}
_PARTS = {"train": "train", "val": "validation"}


def read_imagenet(
    folder: str | Path, *, split: str = "train", image_size: int = 64, max_images_per_class: int | None = None
) -> ImageSet:
    """Read images sorted into synset folders. Classes are numbered by sorted synset, as is usual for ImageNet.

    Each image is cut to its central square and resized by an antialiased Lanczos filter. Pixels are read when asked
    for; files whose names are no image's are passed over, and are
    problems of the set.

    Args:
        folder: The folder that holds the synsets, or that holds train/ and val/.
        split: "train" or "val"; without such sub-folders all images are taken for that part.
        image_size: Side of the square images in pixels.
        max_images_per_class: Take the first so many of each class by name; None takes all.

    Returns:
        RGB images (image_size, image_size, 3); class names "n01440764 tench" where the mapping is there, else the
        synset; source ids "imagenet/n01440764/n01440764_10026".

    Raises:
        FileNotFoundError: There is no such folder, or none named by a synset in it.
        ValueError: A setting that is not allowed, or a class without images.
    """
    if split not in _PARTS:
        raise ValueError(f"split must be train or val, got {split!r}.")
    if image_size < 1 or (max_images_per_class is not None and max_images_per_class < 1):
        raise ValueError(
            f"image_size and max_images_per_class must be at least 1, got {image_size} and {max_images_per_class}."
        )
    root = Path(folder)
    inside = root / split if (root / split).is_dir() else root
    synsets = sorted(entry.name for entry in inside.iterdir() if _SYNSET.fullmatch(entry.name)) if root.is_dir() else []
    if not synsets:
        raise FileNotFoundError(f"{inside} holds no folder named by a synset such as n01440764; unpack ImageNet there.")
    names = _class_names(root, synsets)
    images = [_images(inside / synset) for synset in synsets]
    files = [paths_of_class[:max_images_per_class] for paths_of_class in images]
    for synset, paths_of_class in zip(synsets, files, strict=True):
        if not paths_of_class:
            raise ValueError(f"{inside / synset} is an empty class; unpack its images or remove the folder.")
    labels = np.repeat(np.arange(len(synsets), dtype=np.int64), [len(paths_of_class) for paths_of_class in files])
    paths = [path for paths_of_class in files for path in paths_of_class]
    return ImageSet(
        name="imagenet",
        labels=labels,
        groups=[f"class={synsets[label]}" for label in labels],
        source_ids=[f"imagenet/{path.parent.name}/{path.stem}" for path in paths],
        class_names=names,
        image_shape=(image_size, image_size, 3),
        load=_Photos(inside, paths, image_size),
        parts=[_PARTS[split]] * len(labels),
        problems=tuple(
            Problem(path.relative_to(root).as_posix(), "is no image.", kind=NO_IMAGE, on_disk=False)
            for synset in synsets
            for path in sorted((inside / synset).iterdir())
            if not _is_image(path)
        ),
        num_beyond_cap=sum(len(paths_of_class) for paths_of_class in images) - len(paths),
    )


@dataclass(frozen=True)
class _Photos:
    folder: Path
    paths: list[Path]
    image_size: int

    def __call__(self, index: int) -> NDArray[np.uint8]:
        return to_pixels(fit_square(decode_file(self.paths[index], folder=self.folder, mode="RGB"), self.image_size))


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _is_image(path))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and path.name[0] != "."


def _class_names(root: Path, synsets: list[str]) -> list[str]:
    path = next(
        (at / "LOC_synset_mapping.txt" for at in (root, root.parent) if (at / "LOC_synset_mapping.txt").is_file()), None
    )
    if path is None:
        return synsets
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable text ({error}); fetch it again or remove it.") from error
    words = {line[:9]: line[10:].split(",")[0].strip() for line in lines if _SYNSET.fullmatch(line[:9])}
    return [f"{synset} {words[synset]}".strip() if synset in words else synset for synset in synsets]
