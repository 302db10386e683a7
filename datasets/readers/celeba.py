"""CelebA in its own layout: faces with 40 attributes (Liu et al., ICCV 2015).

<folder>/img_align_celeba/000001.jpg ...    178 x 218 pixels
<folder>/list_attr_celeba.txt               count; attribute names; file name and -1/1 columns
<folder>/list_eval_partition.txt            file name and 0 (train), 1 (validation) or 2 (test)
<folder>/identity_CelebA.txt                file name and number of the person; may be absent
"""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from datasets.readers.images.decoding import decode_file, fit_square, to_pixels
from datasets.readers.imageset import ImageSet, Problem

LICENCE = (
    "CelebFaces Attributes Dataset, Z. Liu, P. Luo, X. Wang and X. Tang, ICCV 2015; for non-commercial research only."
)
PARTITIONS = {"train": "0", "validation": "1", "test": "2"}
_IMAGES, _ATTRIBUTES, _PARTITION = "img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"
_IDENTITIES = "identity_CelebA.txt"


def read_celeba(
    folder: str | Path,
    *,
    target: str = "Blond_Hair",
    protected: str = "Male",
    split: str = "train",
    image_size: int = 64,
    missing: Literal["refuse", "leave out"] = "refuse",
) -> ImageSet:
    """Read one official part of CelebA with one attribute as label and label x a second attribute as group.

    Each image is cut to its central square (178 x 178 of 178 x 218) and resized by an antialiased Lanczos filter.

    Args:
        folder: Where the three entries above lie.
        target: The attribute to predict; label 1 where it is 1.
        protected: The attribute whose combinations with the target are the groups.
        split: "train", "validation" or "test".
        image_size: Side of the square images in pixels, 8..178.
        missing: What to do about faces that an index file names but the folder lacks: "refuse" the whole set, or
            "leave out" those faces and list them in the set's problems.

    Returns:
        RGB images (image_size, image_size, 3); groups such as "Blond_Hair=1,Male=0"; both attributes; identities where
        identity_CelebA.txt lies beside the other lists.

    Raises:
        FileNotFoundError: The folder, an index file or images are missing; one line names all that is.
        ValueError: A setting that is not allowed, or an index file that contradicts itself.
    """
    if split not in PARTITIONS:
        raise ValueError(f"split must be one of {', '.join(PARTITIONS)}, got {split!r}.")
    if not 8 <= image_size <= 178:
        raise ValueError(f"image_size must be 8..178 pixels, the sides of CelebA's faces, got {image_size}.")
    if target == protected:
        raise ValueError(f"target and protected are both {target!r}; name two different attributes.")
    root = Path(folder)
    _require_layout(root)
    chosen = _columns(root / _ATTRIBUTES, names=(target, protected))
    names = _names_of(root / _PARTITION, split=split)
    _require_rows(root, names=names, rows=chosen)
    names, problems = _present(root, names=names, missing=missing)
    values = np.array([chosen[name] for name in names], dtype=np.int64)  # (N, 2), 0 or 1
    return ImageSet(
        name="celeba",
        labels=values[:, 0].copy(),
        groups=[f"{target}={label},{protected}={attribute}" for label, attribute in values],
        source_ids=[f"celeba/{Path(name).stem}" for name in names],
        class_names=[f"not {target}", target],
        image_shape=(image_size, image_size, 3),
        load=_Faces(root / _IMAGES, names, image_size),
        identities=_identities(root / _IDENTITIES, names=names),
        attributes={
            name: [str(value) for value in values[:, column]] for column, name in enumerate((target, protected))
        },
        parts=[split] * len(names),
        problems=tuple(problems),
    )


@dataclass(frozen=True)
class _Faces:
    folder: Path
    names: list[str]
    image_size: int

    def __call__(self, index: int) -> NDArray[np.uint8]:
        face = decode_file(self.folder / self.names[index], folder=self.folder, mode="RGB")
        return to_pixels(fit_square(face, self.image_size))


def _require_layout(root: Path) -> None:
    if not root.is_dir():
        raise FileNotFoundError(f"CelebA folder {root} does not exist; give the folder that holds {_IMAGES}/.")
    missing = [f"{_IMAGES}/"] if not (root / _IMAGES).is_dir() else []
    missing += [name for name in (_ATTRIBUTES, _PARTITION) if not (root / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"CelebA folder {root} lacks {', '.join(missing)}; unpack the aligned and cropped images and their two "
            "index files there."
        )


def _columns(path: Path, *, names: tuple[str, str]) -> dict[str, tuple[int, int]]:
    """File name -> the two attributes as 0 or 1."""
    lines = _lines(path)
    if len(lines) < 2 or not lines[0].strip().isdigit():
        raise ValueError(f"{path} must begin with the number of images and a line of attribute names; fetch it again.")
    header = lines[1].split()
    positions = [_position(path, header=header, name=name) for name in names]
    if int(lines[0]) != len(lines) - 2:
        raise ValueError(
            f"{path} announces {int(lines[0])} images on line 1 but has {len(lines) - 2} rows; fetch it again."
        )
    rows: dict[str, tuple[int, int]] = {}
    for number, line in enumerate(lines[2:], start=3):
        fields = line.split()
        if len(fields) != len(header) + 1:
            raise ValueError(f"{path} line {number} has {len(fields)} fields, expected {len(header) + 1}; repair it.")
        first, second = (_attribute(path, number=number, value=fields[1 + position]) for position in positions)
        rows[fields[0]] = (first, second)
    return rows


def _position(path: Path, *, header: list[str], name: str) -> int:
    if name in header:
        return header.index(name)
    near = difflib.get_close_matches(name, header, n=3, cutoff=0.5) or header
    raise ValueError(f"{path} has no attribute {name!r}; did you mean one of {', '.join(near)}?")


def _attribute(path: Path, *, number: int, value: str) -> int:
    if value not in {"-1", "1"}:
        raise ValueError(f"{path} line {number} has the attribute value {value!r}, expected -1 or 1; repair it.")
    return int(value == "1")


def _names_of(path: Path, *, split: str) -> list[str]:
    names = []
    for number, line in enumerate(_lines(path), start=1):
        fields = line.split()
        if len(fields) != 2 or fields[1] not in PARTITIONS.values():
            raise ValueError(f"{path} line {number} is {line!r}, expected a file name and 0, 1 or 2; repair it.")
        if fields[1] == PARTITIONS[split]:
            names.append(fields[0])
    if not names:
        raise ValueError(f"{path} lists no image of the {split} part ({PARTITIONS[split]}); fetch it again.")
    return names


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not plain text ({error}); fetch it again.") from error


def _require_rows(root: Path, *, names: list[str], rows: dict[str, tuple[int, int]]) -> None:
    without_row = [name for name in names if name not in rows]
    if without_row:
        raise ValueError(
            f"{root / _ATTRIBUTES} has no row for {len(without_row)} images of {_PARTITION}, first "
            f"{without_row[0]}; fetch both files again."
        )


def _present(root: Path, *, names: list[str], missing: str) -> tuple[list[str], list[Problem]]:
    """The faces that are there, and a problem for each that is not."""
    present = {entry.name for entry in (root / _IMAGES).iterdir()}
    absent = [name for name in names if name not in present]
    if absent and (missing == "refuse" or len(absent) == len(names)):
        raise FileNotFoundError(
            f"{root / _IMAGES} lacks {len(absent)} of {len(names)} images, first {absent[0]}; unpack them again."
        )
    problems = [Problem(f"celeba/{Path(name).stem}", f"{root / _IMAGES / name} does not exist.") for name in absent]
    return [name for name in names if name in present], problems


def _identities(path: Path, *, names: list[str]) -> list[str] | None:
    if not path.is_file():
        return None
    person = {}
    for number, line in enumerate(_lines(path), start=1):
        fields = line.split()
        if len(fields) != 2 or not fields[1].isdigit():
            raise ValueError(f"{path} line {number} is {line!r}, expected a file name and a number; repair it.")
        person[fields[0]] = fields[1]
    unnamed = [name for name in names if name not in person]
    if unnamed:
        raise ValueError(f"{path} has no row for {len(unnamed)} images, first {unnamed[0]}; fetch it again.")
    return [person[name] for name in names]
