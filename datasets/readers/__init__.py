"""Readers: one small file a set; what opens their images, tables and tars, and compares names, lies in rooms below."""

from typing import TYPE_CHECKING

from datasets._exports import exported_from

if TYPE_CHECKING:
    from datasets.readers.celeba import read_celeba
    from datasets.readers.cifar10 import read_cifar10
    from datasets.readers.digits import read_digits
    from datasets.readers.fashion_mnist import read_fashion_mnist
    from datasets.readers.folder import read_folder
    from datasets.readers.image_table import read_image_table
    from datasets.readers.image_tars import TarSettings, read_image_tars, read_tar_folder
    from datasets.readers.imagenet import read_imagenet
    from datasets.readers.imageset import ImageSet, Problem
    from datasets.readers.lsun import read_lsun
    from datasets.readers.tables.table_settings import GroupColumn, TableSettings

__all__ = [
    "GroupColumn",
    "ImageSet",
    "Problem",
    "TableSettings",
    "TarSettings",
    "read_celeba",
    "read_cifar10",
    "read_digits",
    "read_fashion_mnist",
    "read_folder",
    "read_image_table",
    "read_image_tars",
    "read_imagenet",
    "read_lsun",
    "read_tar_folder",
]

__getattr__ = exported_from(__file__)
