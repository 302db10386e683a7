"""An export as folders of images: `train/<class>/<key>.png`, and a table beside them that says all the rest.

Hugging Face's `load_dataset("imagefolder", data_dir=...)` reads both; torchvision's `ImageFolder` reads `train/`.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from datasets.export.hf_features import with_features
from datasets.export.opened import OpenedRun

SPLIT = "train"
TABLE_FILE = "metadata.parquet"
#: Words that Hugging Face takes for the name of a split wherever they stand in a path.
_SPLIT_WORDS = re.compile(
    r"(?:^|[-._ 0-9])(?:train|training|validation|valid|dev|val|test|testing|eval|evaluation)(?:[-._ 0-9]|$)", re.I
)
_LONGEST = 60


def write_imagefolder(run: OpenedRun, folder: Path) -> None:
    """Write a run's images and their table into an empty folder."""
    classes = class_folders(run.class_names)
    root = folder / SPLIT
    for name in classes:
        (root / name).mkdir(parents=True)
    names = []
    for image in run.images():
        names.append(f"{classes[image.label]}/{image.key}.{image.extension}")
        (root / names[-1]).write_bytes(image.data)
    rows = run.rows.add_column(0, "file_name", pa.array(names, pa.string()))
    pq.write_table(with_features(rows, run.class_names), root / TABLE_FILE, compression="zstd")


def class_folders(class_names: Sequence[str]) -> list[str]:
    """A folder's name for each class, such that names in alphabetical order are the classes in theirs.

    A class keeps its name where all names allow that; else its number goes before it, and a name that no file system
    or reader would take as it is becomes `class`.

    Example:
        >>> class_folders(["cat", "dog"]), class_folders(["nv", "bkl/a"])
        (['cat', 'dog'], ['0_nv', '1_bkl_a'])
    """
    plain = [_plain(name) for name in class_names]
    folded = [name.casefold() for name in plain]
    if plain == list(class_names) and sorted(set(plain)) == plain and len(set(folded)) == len(folded):
        return plain
    digits = len(str(len(plain) - 1))
    return [f"{number:0{digits}d}_{name}" for number, name in enumerate(plain)]


def _plain(name: str) -> str:
    kept = re.sub(r"[^\w .-]", "_", name).strip(" .")[:_LONGEST].strip(" .")
    return "class" if not kept or _SPLIT_WORDS.search(kept) else kept
