"""What is on disk: readers, splits, long tails, records, units, shards, manifests and the store they live in.

Knows numpy, pyarrow, webdataset, PIL and fsspec; nothing of Prefect or diffusion models, and of torch only where a
stream is handed to a training job.
"""

from typing import TYPE_CHECKING

from datasets._exports import exported_from

if TYPE_CHECKING:
    from datasets.readers.celeba import read_celeba
    from datasets.readers.cifar10 import read_cifar10
    from datasets.readers.digits import read_digits
    from datasets.readers.fashion_mnist import read_fashion_mnist
    from datasets.readers.folder import read_folder
    from datasets.readers.image_table import read_image_table
    from datasets.readers.image_tars import read_image_tars
    from datasets.readers.imagenet import read_imagenet
    from datasets.readers.imageset import ImageSet, Problem
    from datasets.readers.lsun import read_lsun
    from datasets.runs.manifest import Manifest
    from datasets.runs.publish import publish
    from datasets.runs.records import METADATA_SCHEMA
    from datasets.runs.verify import verify
    from datasets.splits.stratified import SplitSettings, make_split
    from datasets.storage.store import Store, StoreError
    from datasets.streaming.loader import EpochProgress, load_balanced
    from datasets.streaming.published import read_published

__all__ = [
    "METADATA_SCHEMA",
    "EpochProgress",
    "ImageSet",
    "Manifest",
    "Problem",
    "SplitSettings",
    "Store",
    "StoreError",
    "load_balanced",
    "make_split",
    "publish",
    "read_celeba",
    "read_cifar10",
    "read_digits",
    "read_fashion_mnist",
    "read_folder",
    "read_image_table",
    "read_image_tars",
    "read_imagenet",
    "read_lsun",
    "read_published",
    "verify",
]

__getattr__ = exported_from(__file__)
