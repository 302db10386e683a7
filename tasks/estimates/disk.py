"""Bytes that a run leaves in the store: units, shards, tables, what is fitted, classifiers' answers, report, gallery.

Sizes of images are those of the real ones, of which some are packed as the run will pack them. The constants were
measured on published runs of the digits; `tests/tasks/estimates/test_disk.py` holds the sum against a run.
"""

import tarfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.runs.shards import encode_png
from minority.classifier import SmallCNN
from tasks.config.runs import AugmentConfig
from tasks.inputs.real_data import RealData
from tasks.report.gallery import MOST_SHOWN
from tasks.report.sprites import SpriteSheets

_MEASURED_IMAGES = 256
_BLOCK = 512
#: A sample is three members with a header each; class and record take a block each.
_BLOCKS_BESIDE_THE_IMAGE = 5
#: Of a unit's table, whose footer names every column, and of a row in it; of a row in the run's table.
_UNIT_TABLE, _UNIT_ROW = 15_500, 294
_RUN_ROW = 263
#: Of the gallery's page, and of a candidate in it.
_GALLERY, _GALLERY_ROW = 22_000, 140
#: Of the report with its figures and pictures, and of what a comparison of classifiers adds to it.
_REPORT, _COMPARISON = 216_000, 190_000
#: Of a training's predictions: the file, and an image that it predicts.
_PREDICTIONS, _PREDICTION = 600, 1.5
_MANIFEST_AND_PLANS = 19_000
_BYTES_A_WEIGHT = 4
_LABELLER_MEMBERS = 3


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """How many samples a run makes.

    Attributes:
        stages: Samples of each stage that units are made of: real images, the baseline, every round.
        candidates: Of these, those that are candidates of the quotas.
        published: Images in the shards, real and synthetic.
        trainings: Of classifiers, in the comparison.
        labelled: Whether a labeller is trained.
        reading: Bytes of what a backbone makes of the compared images, for the recipes that use it.
    """

    stages: Sequence[int]
    candidates: int
    published: int
    trainings: int
    labelled: bool
    reading: int = 0


def bytes_on_disk(config: AugmentConfig, real: RealData, amounts: Amounts) -> int:
    """What the run's part of the store will hold.

    Args:
        config: The run.
        real: Its real images.
        amounts: How many samples it makes.
    """
    some = real.train.images(range(0, len(real.train), max(1, len(real.train) // _MEASURED_IMAGES)))
    sample = _bytes_in_a_tar(some)
    units = [size for stage in amounts.stages for size in _divided(stage, config.plan.unit_size)]
    shards = _divided(amounts.published, config.publish.samples_per_shard)
    parts = [
        *(_tar(size, sample) + _UNIT_TABLE + _UNIT_ROW * size for size in units),
        *(_tar(size, sample) for size in shards),
        _RUN_ROW * sum(units),
        _report(some, amounts),
        amounts.trainings * (_PREDICTIONS + _PREDICTION * len(real.test)),
        _fitted(config, real, labelled=amounts.labelled),
        amounts.reading,
        _MANIFEST_AND_PLANS,
    ]
    return round(sum(parts))


def _bytes_in_a_tar(images: NDArray[np.uint8]) -> float:
    """Of a sample, on average."""
    blocks = [-(-len(encode_png(image)) // _BLOCK) for image in images]
    return _BLOCK * (_BLOCKS_BESIDE_THE_IMAGE + sum(blocks) / len(blocks))


def _tar(samples: int, bytes_a_sample: float) -> float:
    """Two empty blocks end a tar, which is filled up to whole records."""
    content = samples * bytes_a_sample + 2 * _BLOCK
    return -(-content // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def _divided(count: int, most: int) -> list[int]:
    """Samples of each unit or shard."""
    return [min(most, count - start) for start in range(0, count, most)]


def _report(some: NDArray[np.uint8], amounts: Amounts) -> float:
    """Report and gallery; thumbnails are measured on real images."""
    written: list[int] = []
    sheets = SpriteSheets("measured", lambda _name, data: written.append(len(data)))
    for image in some:
        sheets.add(image)
    sheets.close()
    shown = min(amounts.candidates, MOST_SHOWN)
    thumbnails = shown + min(amounts.stages[0], shown)  # candidates, and the real images nearest to them
    page = _GALLERY + _GALLERY_ROW * shown + thumbnails * sum(written) / len(some)
    return page + _REPORT + (_COMPARISON if amounts.trainings else 0)


def _fitted(config: AugmentConfig, real: RealData, *, labelled: bool) -> int:
    """Networks that are trained on the way, and what the discriminator says of the training images."""
    height, width, channels = real.train.image_shape

    def network(outputs: int, first: int) -> int:
        model = SmallCNN((height, width), num_channels=channels, num_classes=outputs, width=first)
        return _BYTES_A_WEIGHT * sum(int(tensor.numel()) for tensor in model.state_dict().values())

    total = 0
    if config.selection.held_out is not None:
        rules, classes = config.selection.held_out.discriminator, len(real.train.class_names)
        seen = min(len(real.train), rules.max_images)
        total += rules.folds * network(classes + 1, rules.classifier.width) + 8 * seen * (classes + 2)
    if labelled:
        total += _LABELLER_MEMBERS * network(len(real.groups), config.labeller.width)
    return total
