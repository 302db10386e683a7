"""What a backbone makes of the images of a comparison, and how much of it there is."""

import numpy as np

from minority.downstream.data import DownstreamData, LabelledImages
from minority.downstream.settings import Jitter
from minority.evaluation.backbone_reading import ReadingSettings, features_an_image, read_backbone
from minority.sampling.diffusion_classifier import ZeroShotSettings


def test_a_reading_has_the_numbers_that_are_foretold(backbone):
    channels, height, width = backbone.image_shape
    classes = [f"c{label}" for label in range(backbone.num_classes)]

    def images(count):
        labels = np.arange(count) % len(classes)
        pixels = np.random.default_rng(count).integers(0, 256, (count, height, width, channels), dtype=np.uint8)
        return LabelledImages(pixels, labels, labels)

    data = DownstreamData(
        train=images(12), validation=images(5), test=images(7), class_names=tuple(classes), group_names=tuple(classes)
    )
    settings = ReadingSettings(copies=2, zero_shot=ZeroShotSettings(levels=3))

    reading = read_backbone(backbone, data, settings=settings, jitter_settings=Jitter())

    numbers = features_an_image(backbone, settings)
    assert {name: part.shape for name, part in reading.features.items()} == {
        "train": (12, numbers),
        "validation": (5, numbers),
        "test": (7, numbers),
    }
    assert {name: part.shape for name, part in reading.errors.items()} == {
        "validation": (5, len(classes), 3),
        "test": (7, len(classes), 3),
        "augmented": (2 * 12, len(classes), 3),
    }
