"""The images that arms are trained, tuned and tested on.

Shapes: N images, H x W pixels, C channels, K classes, G groups.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from minority.runtime.image_arrays import Images, choose

if TYPE_CHECKING:
    from minority.downstream.backbone_outputs import BackboneReading

UInt8 = NDArray[np.uint8]
Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images with their classes and groups.

    Attributes:
        images: (N, H, W, C) uint8: a numpy array, or something that reads images where it is indexed.
        labels: (N,) int64 classes.
        groups: (N,) int64 groups: combinations of class and attribute. Where there are none, the classes.
        attributes: (N,) int64 values >= 0 of what divides the classes into groups, one number a combination of values;
            None where nothing does, or where it is not known.
    """

    images: Images
    labels: Int64
    groups: Int64
    attributes: Int64 | None = None

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or len(self.images.shape) != 4:
            raise ValueError(f"images must be uint8 (N, H, W, C), got {self.images.dtype} {self.images.shape}.")
        for name in ("labels", "groups", "attributes"):
            values = getattr(self, name)
            if values is None:
                continue
            if values.shape != (len(self.images),) or not np.issubdtype(values.dtype, np.integer):
                raise ValueError(
                    f"{name} must be {len(self.images)} integers, one an image, got {values.dtype} {values.shape}."
                )

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Int64) -> "LabelledImages":
        """The images at `indices`, in that order."""
        attributes = None if self.attributes is None else self.attributes[indices]
        return LabelledImages(choose(self.images, indices), self.labels[indices], self.groups[indices], attributes)


@dataclass(frozen=True, eq=False, kw_only=True)
class DownstreamData:
    """Everything a comparison of arms needs.

    Attributes:
        train: Real images to train on.
        validation: Real images on which settings are chosen, and last layers are retrained.
        test: Real images that are looked at once.
        class_names: K names.
        group_names: G names.
        synthetic: Synthetic images by source, e.g. {"plain": ..., "minority": ...}.
        reading: What a pretrained backbone makes of these images, for the arms that use one; None elsewhere.
        sensitive: Values of the test images by attribute, e.g. {"sex": ["male", None, ...]}; None where unknown.
    """

    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages
    class_names: tuple[str, ...]
    group_names: tuple[str, ...]
    synthetic: Mapping[str, LabelledImages] = field(default_factory=dict)
    sensitive: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    reading: "BackboneReading | None" = None

    def __post_init__(self) -> None:
        parts = {"train": self.train, "validation": self.validation, "test": self.test} | dict(self.synthetic)
        shape = self.train.images.shape[1:]
        for name, part in parts.items():
            if len(part) and part.images.shape[1:] != shape:
                raise ValueError(f"{name} images are {part.images.shape[1:]}, the training images {shape} (H, W, C).")
            for kind, values, count in (
                ("labels", part.labels, len(self.class_names)),
                ("groups", part.groups, len(self.group_names)),
            ):
                if len(values) and not 0 <= values.min() <= values.max() < count:
                    raise ValueError(f"{name} {kind} must lie in [0, {count}), got {values.min()} ... {values.max()}.")
        for name, sensitive in self.sensitive.items():
            if len(sensitive) != len(self.test):
                raise ValueError(
                    f"attribute {name} has {len(sensitive)} values for {len(self.test)} test images; give one an image."
                )
        absent = sorted(set(range(len(self.class_names))) - set(self.train.labels.tolist()))
        if absent:
            names = ", ".join(self.class_names[label] for label in absent)
            raise ValueError(f"class {names} has no real training image; give each class at least one or leave it out.")
        if len(self.test) == 0:
            raise ValueError("the test split is empty; arms cannot be compared without test images.")
