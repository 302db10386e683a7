"""Where readers are registered: `READERS` says how the images of a set are read and divided, by the reader's name.

docs/data.md, "Adding a reader", lists what else knows a reader by name.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path

import numpy as np

import datasets.readers.celeba
import datasets.readers.cifar10
import datasets.readers.coloured_digits
import datasets.readers.digits
import datasets.readers.fashion_mnist
import datasets.readers.folder
import datasets.readers.image_table
import datasets.readers.image_tars
import datasets.readers.imagenet
import datasets.readers.lsun
import datasets.streaming.published
from datasets.readers.folder_zip import read_folder_zip
from datasets.readers.imageset import ImageSet
from datasets.splits.identity_split import split_by_identity, split_set
from datasets.splits.pool import IN_THE_POOL, OUTSIDE_THE_POOL, pool_and_user
from datasets.splits.stratified import OVER_VALIDATION_CAP, THINNED, Split, capped, long_tail, make_split
from tasks.config.paths import data_path
from tasks.config.sections import DatasetConfig, Reader
from tasks.errors import InputError


@dataclass(frozen=True, eq=False)
class DividedSet:
    """What a reader gives: the images by part, before anybody has looked at their pixels.

    Attributes:
        train: What backbones, filters and classifiers may see.
        validation: What settings may be chosen on.
        test: What is looked at once, downstream.
        licence: Licence and provenance.
        left_out: Reason -> ids of the images that are in no part by the settings.
    """

    train: ImageSet
    validation: ImageSet
    test: ImageSet
    _: KW_ONLY
    licence: str
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)


def _read_digits(config: DatasetConfig) -> DividedSet:
    digits = datasets.readers.digits.read_digits()
    digits, aside = _side_of_pool(digits, config)
    split = make_split(digits.labels, config.split, class_names=digits.class_names)
    return _divided(digits, split, licence=datasets.readers.digits.LICENCE, aside=aside)


def _read_coloured_digits(config: DatasetConfig) -> DividedSet:
    images = datasets.readers.coloured_digits.read_coloured_digits(colours=config.colours or "skewed")
    return _split(images, config, licence=datasets.readers.coloured_digits.LICENCE)


def _read_celeba(config: DatasetConfig) -> DividedSet:
    folder = _folder(config, holds="img_align_celeba/ and its lists")
    parts = [
        datasets.readers.celeba.read_celeba(
            folder,
            target=config.target,
            protected=config.protected,
            split=split,
            image_size=config.image_size or 64,
        )
        for split in ("train", "validation", "test")
    ]
    return DividedSet(*parts, licence=datasets.readers.celeba.LICENCE)


def _read_fashion_mnist(config: DatasetConfig) -> DividedSet:
    folder = _folder(config, holds="the four idx files")
    images = datasets.readers.fashion_mnist.read_fashion_mnist(folder, image_size=config.image_size or 28)
    return _split(images, config, licence=datasets.readers.fashion_mnist.LICENCE)


def _read_cifar10(config: DatasetConfig) -> DividedSet:
    folder = _folder(config, holds="CIFAR-10's batches or strips.zip")
    return _split(datasets.readers.cifar10.read_cifar10(folder), config, licence=datasets.readers.cifar10.LICENCE)


def _read_image_table(config: DatasetConfig) -> DividedSet:
    if config.table is None:
        raise InputError("dataset.table is not set; say where images and columns are, as in examples/sets/*.yaml.")
    folder = _folder(config, holds=f"{config.table.table} and the images")
    table = replace(config.table, image_size=config.image_size or config.table.image_size)
    return _split(datasets.readers.image_table.read_image_table(folder, table), config, licence=table.licence)


def _read_image_tars(config: DatasetConfig) -> DividedSet:
    if config.tars is None:
        raise InputError("dataset.tars is not set; name the classes, e.g. --set 'dataset.tars.classes=[cat, dog]'.")
    if config.image_size is None:
        raise InputError("dataset.image_size is not set; give the side in pixels that images are cut and resized to.")
    folder = _folder(config, holds="the tars")
    images = datasets.readers.image_tars.read_tar_folder(folder, config.tars, image_size=config.image_size)
    return _split(images, config, licence="Unknown; ask whoever gave you the images.")


def _read_folder(config: DatasetConfig) -> DividedSet:
    folder = _folder(config, holds="one folder a class")
    if folder.is_file():
        if config.image_size is None:
            raise InputError("dataset.image_size is not set; give the side that images are cut and resized to.")
        images = read_folder_zip(folder, image_size=config.image_size, classes=config.classes)
    else:
        images = datasets.readers.folder.read_folder(folder, image_size=config.image_size, classes=config.classes)
    if images.parts is not None and "train" not in images.parts:
        raise InputError(f"{folder} has no images in train/ to learn from; add them, or name one of its parts itself.")
    return _split(images, config, licence="Unknown; ask whoever gave you the images.")


def _read_lsun(config: DatasetConfig) -> DividedSet:
    folder = _folder(config, holds="<category>_train_lmdb and <category>_val_lmdb")

    def read(split: str, most: int | None) -> ImageSet:
        return datasets.readers.lsun.read_lsun(
            folder,
            categories=config.categories,
            split=split,
            image_size=config.image_size or 256,
            max_images=most,
        )

    return _hold_out(read("train", config.max_images), read("val", None), config, licence=datasets.readers.lsun.LICENCE)


def _read_imagenet(config: DatasetConfig) -> DividedSet:
    folder = _folder(config, holds="train/ and val/ with one folder a synset")

    def read(split: str, most: int | None) -> ImageSet:
        return datasets.readers.imagenet.read_imagenet(
            folder, split=split, image_size=config.image_size or 64, max_images_per_class=most
        )

    return _hold_out(
        read("train", config.max_images), read("val", None), config, licence=datasets.readers.imagenet.LICENCE
    )


def _read_published(config: DatasetConfig) -> DividedSet:
    """Published shards: held out are real images alone, so that nothing is evaluated by what a backbone drew."""
    if config.folder is None:
        raise InputError("dataset.folder is not set; name the manifest.json of a published run, a file or a URL.")
    manifest = config.folder if "://" in config.folder else str(data_path(config.folder))
    if Path(manifest).is_dir():
        raise InputError(f"{manifest} is a folder; name the manifest.json in it.")
    images = datasets.streaming.published.read_published(manifest, source=config.source)
    is_real = np.array([source == "real" for source in images.attributes["source"]])
    if not is_real.any():
        raise InputError(f"{manifest} has no real image to hold out; leave dataset.source out, or set it to real.")
    split = split_set(images.subset(np.flatnonzero(is_real)), config.split)
    real = np.flatnonzero(is_real)
    left_out = {reason: [images.source_ids[i] for i in real[positions]] for reason, positions in split.left_out.items()}
    train, validation, test = (real[part] for part in (split.train, split.validation, split.test))
    train = np.sort(np.concatenate([train, np.flatnonzero(~is_real)]))
    parts = [images.subset(part) for part in (train, validation, test)]
    licence = "That of the set it was published from; ask whoever published it."
    return DividedSet(*parts, left_out=left_out, licence=licence)


#: Reader -> what reads and divides its set.
READERS: dict[Reader, Callable[[DatasetConfig], DividedSet]] = {
    "digits": _read_digits,
    "coloured_digits": _read_coloured_digits,
    "celeba": _read_celeba,
    "fashion_mnist": _read_fashion_mnist,
    "cifar10": _read_cifar10,
    "image_table": _read_image_table,
    "image_tars": _read_image_tars,
    "folder": _read_folder,
    "lsun": _read_lsun,
    "imagenet": _read_imagenet,
    "published": _read_published,
}


def _folder(config: DatasetConfig, *, holds: str) -> Path:
    if config.folder is None:
        raise InputError(f"dataset.folder is not set; name the folder that holds {holds}.")
    return data_path(config.folder)


def _split(images: ImageSet, config: DatasetConfig, *, licence: str) -> DividedSet:
    images, aside = _side_of_pool(images, config)
    return _divided(images, split_set(images, config.split), licence=licence, aside=aside)


def _side_of_pool(images: ImageSet, config: DatasetConfig) -> tuple[ImageSet, Mapping[str, Sequence[str]]]:
    """The side of the pool that is asked for, and the ids of the images on the other one, by the reason."""
    if config.pool is None:
        return images, {}
    pool, user = pool_and_user(images, config.pool)
    wants_pool = config.pool.take == "pool"
    taken, other = (pool, user) if wants_pool else (user, pool)
    reason = OUTSIDE_THE_POOL if wants_pool else IN_THE_POOL
    return images.subset(taken), {reason: [images.source_ids[index] for index in other]}


def _divided(
    images: ImageSet,
    split: Split,
    *,
    licence: str,
    aside: Mapping[str, Sequence[str]] | None = None,
) -> DividedSet:
    parts = [images.subset(part) for part in (split.train, split.validation, split.test)]
    left_out = {reason: [images.source_ids[index] for index in indices] for reason, indices in split.left_out.items()}
    left_out |= {reason: list(ids) for reason, ids in (aside or {}).items()}
    return DividedSet(*parts, left_out=left_out, licence=licence)


def _hold_out(images: ImageSet, test: ImageSet, config: DatasetConfig, *, licence: str) -> DividedSet:
    """Sets whose makers gave a training and a validation part: the latter tests, and some of the former validates."""
    held_out = split_by_identity(
        images.source_ids,
        test_fraction=0.0,
        validation_fraction=config.split.validation_fraction,
        seed=config.split.seed,
    )
    train, settings = held_out.train, config.split
    if settings.imbalance is not None:
        train = long_tail(images.labels, train, imbalance=settings.imbalance, seed=settings.seed)
    validation = capped(images.labels, held_out.validation, settings)
    left_out = {
        THINNED: [images.source_ids[index] for index in np.setdiff1d(held_out.train, train)],
        OVER_VALIDATION_CAP: [images.source_ids[index] for index in np.setdiff1d(held_out.validation, validation)],
    }
    return DividedSet(images.subset(train), images.subset(validation), test, left_out=left_out, licence=licence)
