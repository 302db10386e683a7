"""The real images of a run: read, split, and named by group."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

import datasets.celeba
import datasets.digits
from datasets.imageset import ImageSet
from datasets.splits import make_split
from tasks.config import DatasetConfig, project_path
from tasks.errors import InputError


@dataclass(frozen=True, eq=False)
class RealData:
    """Real images by split.

    Attributes:
        train: What backbones, judges and classifiers may see.
        validation: What settings may be chosen on.
        test: What is looked at once, downstream.
        groups: The groups whose quotas are filled, in the order of their labels.
        licence: Licence and provenance.
    """

    train: ImageSet
    validation: ImageSet
    test: ImageSet
    groups: list[str]
    licence: str

    @property
    def train_groups(self) -> NDArray[np.int64]:
        """(N,) group index of every training image."""
        return np.array([self.groups.index(group) for group in self.train.groups], dtype=np.int64)

    @property
    def group_labels(self) -> list[int]:
        """The label of every group."""
        label_of = dict(zip(self.train.groups, self.train.labels.tolist(), strict=True))
        return [label_of[group] for group in self.groups]

    @property
    def has_one_group_a_label(self) -> bool:
        """Whether the label alone tells the group."""
        return len(set(self.group_labels)) == len(self.groups)


@lru_cache(maxsize=4)
def load_real_data(config: DatasetConfig) -> RealData:
    """Read and split the real images; kept for the life of the process.

    Raises:
        InputError: Files are missing, unreadable or contradict the config.
    """
    try:
        return _READERS[config.reader](config)
    except (ValueError, FileNotFoundError) as error:
        raise InputError(str(error)) from error


def _read_digits(config: DatasetConfig) -> RealData:
    digits = datasets.digits.read_digits()
    split = make_split(digits.labels, config.split, class_names=digits.class_names)
    parts = [digits.subset(part) for part in (split.train, split.validation, split.test)]
    return _with_groups(*parts, licence=datasets.digits.LICENCE)


def _read_celeba(config: DatasetConfig) -> RealData:
    if config.folder is None:
        raise InputError("dataset.folder is not set; name the folder that holds img_align_celeba/ and its lists.")
    folder = project_path(config.folder)
    parts = [
        datasets.celeba.read_celeba(
            folder, target=config.target, protected=config.protected, split=split, image_size=config.image_size
        )
        for split in ("train", "validation", "test")
    ]
    return _with_groups(*parts, licence=datasets.celeba.LICENCE)


_READERS = {"digits": _read_digits, "celeba": _read_celeba}


def _with_groups(train: ImageSet, validation: ImageSet, test: ImageSet, *, licence: str) -> RealData:
    named = sorted({(int(label), group) for label, group in zip(train.labels, train.groups, strict=True)})
    data = RealData(
        train=train, validation=validation, test=test, groups=[group for _, group in named], licence=licence
    )
    present = set(train.labels.tolist())
    empty = [name for label, name in enumerate(train.class_names) if label not in present]
    if empty:
        raise InputError(f"the training split has no image of class {', '.join(empty)}; give each class at least one.")
    return data
