"""The real images of a run: read, split, and named by group."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from datasets.readers.images.image_digest import image_digest, remember_pixels
from datasets.readers.images.screening import Screening
from datasets.readers.imageset import PARTS, ImageSet, Problem
from datasets.readers.tables.added_column import with_column
from datasets.splits.account import Account, take_account
from tasks.config.paths import data_path
from tasks.config.sections import DatasetConfig
from tasks.errors import InputError
from tasks.inputs.readers import READERS, DividedSet
from tasks.inputs.real_images import RealImages
from tasks.inputs.screened import screened


@dataclass(frozen=True, eq=False)
class RealData:
    """Real images by split.

    Attributes:
        train: What backbones, filters and classifiers may see.
        validation: What settings may be chosen on.
        test: What is looked at once, downstream.
        groups: The groups whose quotas are filled, in the order of their labels.
        licence: Licence and provenance.
        account: In which part every image on disk is, or why it is in none.
        problems: What the account counts as left out for a fault of its own: rows and images, one by one.
        absent: Group -> label of those among `groups` that no training image is of (tasks/inputs/planned_groups.py).
    """

    train: ImageSet
    validation: ImageSet
    test: ImageSet
    groups: list[str]
    licence: str
    account: Account
    problems: tuple[Problem, ...] = ()
    absent: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """64 hex digits over labels, groups, ids and pixels of the training and validation images.

        Reads what of them has not been read yet, one image at a time. Images that change afterwards are refused when
        they are read again.

        Raises:
            InputError: An image cannot be decoded, or has changed; the message names it.
        """
        try:
            return image_digest({"training": self.train, "validation": self.validation})
        except (ValueError, OSError) as error:
            raise InputError(str(error)) from error

    @cached_property
    def train_images(self) -> RealImages:
        """(N, H, W, C) uint8, the training images, read where they are needed; a small set once for all its users."""
        return RealImages(self.train)

    @cached_property
    def validation_images(self) -> RealImages:
        """(M, H, W, C) uint8, the validation images, read where they are needed."""
        return RealImages(self.validation)

    @cached_property
    def train_groups(self) -> NDArray[np.int64]:
        """(N,) group index of every training image."""
        return np.array([self._number_of[group] for group in self.train.groups], dtype=np.int64)

    @cached_property
    def validation_groups(self) -> NDArray[np.int64]:
        """(M,) group index of every validation image; -1 where its group is none of `groups`."""
        return np.array([self._number_of.get(group, -1) for group in self.validation.groups], dtype=np.int64)

    @cached_property
    def _number_of(self) -> Mapping[str, int]:
        """Group -> its place in `groups`."""
        return {group: i for i, group in enumerate(self.groups)}

    @cached_property
    def group_labels(self) -> list[int]:
        """The label of every group."""
        label_of = dict(zip(self.train.groups, self.train.labels.tolist(), strict=True)) | dict(self.absent)
        return [label_of[group] for group in self.groups]

    @property
    def has_one_group_a_label(self) -> bool:
        """Whether the label alone tells the group."""
        return len(set(self.group_labels)) == len(self.groups)


def load_real_data(config: DatasetConfig) -> RealData:
    """Read and split the real images; kept for the life of the process.

    Raises:
        InputError: Files are missing, unreadable or contradict the config.
    """
    return _load(config.model_dump_json())


@lru_cache(maxsize=4)
def _load(content: str) -> RealData:
    config = DatasetConfig.model_validate_json(content)
    try:
        return _accounted(READERS[config.reader](config), config)
    except (ValueError, FileNotFoundError) as error:
        raise InputError(str(error)) from error


def _accounted(divided: DividedSet, config: DatasetConfig) -> RealData:
    """The parts without the images that cannot be read, and the account of all of them."""
    train, validation, test = divided.train, divided.validation, divided.test
    if config.discovered is not None:
        table, column = data_path(config.discovered), config.discovered_column or "conflicting"
        train, validation, test = (with_column(part, table, column=column) for part in (train, validation, test))
    parts = dict(zip(PARTS, (train, validation, test), strict=True))
    # Published shards have checksums, which `minority verify` looks at, and may lie far away.
    screening = Screening(unreadable={}) if config.reader == "published" else screened(parts, config)
    damaged = [
        Problem(parts[name].source_ids[index], reason)
        for name, reasons in screening.unreadable.items()
        for index, reason in reasons.items()
    ]
    digests = dict(screening.digests)
    for name, reasons in screening.unreadable.items():
        if reasons:
            readable = np.setdiff1d(np.arange(len(parts[name])), list(reasons))
            parts[name], digests[name] = parts[name].subset(readable), digests[name][readable]
    account = take_account(
        parts,
        left_out=divided.left_out,
        unreadable=damaged,
        num_beyond_cap=train.num_beyond_cap,
        notes=screening.to_notes(),
    )
    known = dict.fromkeys(problem for part in parts.values() for problem in part.problems)
    train, validation, test = parts.values()
    named = sorted({(int(label), group) for label, group in zip(train.labels, train.groups, strict=True)})
    data = RealData(
        train=remember_pixels(train, digests.get("train")),
        validation=remember_pixels(validation, digests.get("validation")),
        test=test,
        groups=[group for _, group in named],
        licence=divided.licence,
        account=account,
        problems=(*known, *damaged),
    )
    present = set(train.labels.tolist())
    empty = [name for label, name in enumerate(train.class_names) if label not in present]
    if empty:
        why = f" ({len(damaged)} images cannot be read, first {damaged[0].source_id})" if damaged else ""
        raise InputError(
            f"the training split has no image of class {', '.join(empty)}{why}; give each class at least one."
        )
    return data
