"""Which images train, which select models and which test; and the exponential long tail.

Everything here maps labels and a seed to sorted index arrays; no image is touched.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from datasets.splits.streams import Stream

Indices = NDArray[np.int64]

# Why an image of a set is in no part of its split.
THINNED = "thinned by the long tail (split.imbalance)"
OVER_VALIDATION_CAP = "above split.validation_cap"


@dataclass(frozen=True, kw_only=True)
class SplitSettings:
    """How a labelled set is divided.

    Attributes:
        test_fraction: Share of every class held out for testing, in (0, 1).
        validation_fraction: Share of every class of the training part set aside to select models, in [0, 1); rounded
            down, so that the rarest classes may have none.
        imbalance: How many times commoner class 0 is than the last class in the training part, >= 1; None keeps all.
        validation_cap: Validation images of a class, at most; what is above it is left unused, so that a validation
            part is not richer in rare classes than a long-tailed training part. None keeps all; at least 1.
        validation_each: Images of every class set aside for validation before the long tail, so that rare classes can
            be validated, too; takes the place of validation_fraction. At least 1; None: by that fraction.
        seed: The same seed and labels give the same split.
    """

    test_fraction: float = 0.2
    validation_fraction: float = 0.1
    imbalance: float | None = None
    validation_cap: int | None = None
    validation_each: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.test_fraction < 1:
            raise ValueError(f"SplitSettings.test_fraction must be between 0 and 1, got {self.test_fraction}.")
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(f"SplitSettings.validation_fraction must be in [0, 1), got {self.validation_fraction}.")
        if self.imbalance is not None and not 1 <= self.imbalance < math.inf:
            raise ValueError(f"SplitSettings.imbalance must be at least 1, or None, got {self.imbalance}.")
        if self.validation_cap is not None and self.validation_cap < 1:
            raise ValueError(
                f"SplitSettings.validation_cap must be at least 1 image, or None, got {self.validation_cap}."
            )
        if self.validation_each is not None and self.validation_each < 1:
            raise ValueError(
                f"SplitSettings.validation_each must be at least 1 image, or None, got {self.validation_each}."
            )
        if self.seed < 0:
            raise ValueError(f"SplitSettings.seed must be at least 0, got {self.seed}.")


@dataclass(frozen=True, eq=False)
class Split:
    """Which images are in which part; no image is in two.

    Attributes:
        train: Sorted int64 positions.
        validation: Sorted int64 positions.
        test: Sorted int64 positions.
        left_out: Reason -> sorted positions of the images that for it are in no part.
    """

    train: Indices
    validation: Indices
    test: Indices
    left_out: Mapping[str, Indices] = field(default_factory=dict)


def make_split(labels: Indices, settings: SplitSettings, *, class_names: Sequence[str] | None = None) -> Split:
    """Hold out a test part, give the rest a long tail, and set some of that aside for validation.

    Args:
        labels: (N,) class of each image.
        settings: How to divide.
        class_names: All classes that must be there; the classes 0..max(labels) where not given.

    Raises:
        ValueError: A class would be empty in the training or the test part.

    Example:
        >>> split = make_split(np.repeat([0, 1], [400, 40]), SplitSettings())
        >>> len(split.train), len(split.validation), len(split.test)
        (317, 35, 88)
    """
    names = list(class_names) if class_names is not None else [str(label) for label in range(_num_classes(labels))]
    _require_classes(labels, names=names, part="whole set")
    rest, test = stratified_split(labels, test_fraction=settings.test_fraction, seed=settings.seed)
    _require_classes(labels[test], names=names, part="test part")
    _require_classes(labels[rest], names=names, part="training part")
    each = settings.validation_each
    if each is not None:
        rest, first = _validation_each(labels, rest, each=each, seed=settings.seed, names=names)
    whole = rest
    if settings.imbalance is not None:
        rest = long_tail(labels, rest, imbalance=settings.imbalance, seed=settings.seed)
    if each is not None:
        train, all_validation = rest, first
    else:
        train, all_validation = validation_from(labels, rest, fraction=settings.validation_fraction, seed=settings.seed)
    _require_classes(labels[train], names=names, part="training part")
    validation = capped(labels, all_validation, settings)
    left_out = {THINNED: np.setdiff1d(whole, rest), OVER_VALIDATION_CAP: np.setdiff1d(all_validation, validation)}
    return Split(train=train, validation=validation, test=test, left_out=left_out)


def capped(labels: Indices, validation: Indices, settings: SplitSettings) -> Indices:
    """The validation positions with at most `settings.validation_cap` of each class, sorted."""
    if settings.validation_cap is None:
        return validation
    counts = {label: min(size, settings.validation_cap) for label, size in _sizes(labels[validation]).items()}
    return _draw(labels, validation, counts=counts, seed=(settings.seed, Stream.VALIDATION_CAP))


def stratified_split(labels: Indices, *, test_fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Divide every class by one fraction. Returns the sorted positions (rest, test).

    A class of n images gives floor(test_fraction * n + 1/2) of them to the test part.

    Args:
        labels: (N,) integers, one an image.
        test_fraction: In [0, 1].
        seed: Decides which images of a class.
    """
    everything = np.arange(len(labels), dtype=np.int64)
    counts = {label: _half_up(test_fraction * size) for label, size in _sizes(labels).items()}
    test = _draw(labels, everything, counts=counts, seed=(seed, Stream.TEST))
    return np.setdiff1d(everything, test), test


def long_tail(labels: Indices, indices: Indices, *, imbalance: float, seed: int) -> Indices:
    """Thin the classes to an exponential profile, class 0 the commonest and the last class the rarest.

    Class c of K keeps round(n_max * imbalance ** (-c / (K - 1))) images, where n_max is the largest number, at most
    what class 0 has, for which every class has enough.

    Args:
        labels: (N,) class of each image of the whole set.
        indices: Positions to choose from.
        imbalance: n of class 0 divided by n of the last class, >= 1.
        seed: Chooses which images of a class stay.

    Returns:
        The sorted positions that stay.

    Raises:
        ValueError: A class has no image, or the profile leaves it none.

    Example:
        >>> labels = np.repeat([0, 1, 2], 100)
        >>> kept = long_tail(labels, np.arange(300), imbalance=100, seed=0)
        >>> np.bincount(labels[kept]).tolist()
        [100, 10, 1]
    """
    if imbalance < 1:
        raise ValueError(f"imbalance must be at least 1, got {imbalance}.")
    num_classes = _num_classes(labels)
    sizes = _sizes(labels[indices])
    shares = [imbalance ** (-c / max(1, num_classes - 1)) for c in range(num_classes)]
    # 1e-9: 5 images at a share of 1/20 are enough for 100, whatever the last binary digit says.
    largest = min(math.floor(sizes.get(c, 0) / shares[c] + 1e-9) for c in range(num_classes))
    counts = {c: _half_up(largest * shares[c]) for c in range(num_classes)}
    empty = [c for c, count in counts.items() if count == 0]
    if empty:
        raise ValueError(
            f"imbalance {imbalance:g} leaves class {empty[0]} no image (class 0 keeps {counts[0]}); "
            "lower it, or give more images."
        )
    return _draw(labels, indices, counts=counts, seed=(seed, Stream.EXPONENTIAL_TAIL))


def validation_from(labels: Indices, indices: Indices, *, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Set aside floor(fraction * n) of the n images of every class. Returns the sorted (train, validation)."""
    # 1e-9: 0.29 * 100 is 28.999999999999996 in binary.
    counts = {label: math.floor(fraction * size + 1e-9) for label, size in _sizes(labels[indices]).items()}
    validation = _draw(labels, indices, counts=counts, seed=(seed, Stream.VALIDATION))
    return np.setdiff1d(indices, validation), validation


def _validation_each(
    labels: Indices, indices: Indices, *, each: int, seed: int, names: Sequence[str]
) -> tuple[Indices, Indices]:
    """Set aside so many of every class. Returns the sorted (rest, validation)."""
    small = [names[label] for label, size in _sizes(labels[indices]).items() if size <= each]
    if small:
        raise ValueError(
            f"split.validation_each takes {each} images of every class, and leaves none of {', '.join(small)} to train "
            "on; lower it."
        )
    counts = dict.fromkeys(_sizes(labels[indices]), each)
    validation = _draw(labels, indices, counts=counts, seed=(seed, Stream.VALIDATION_EACH))
    return np.setdiff1d(indices, validation), validation


def _draw(labels: Indices, indices: Indices, *, counts: dict[int, int], seed: tuple[int, int]) -> Indices:
    """counts[c] positions of every class c, sorted. A class's choice does not depend on the other classes."""
    chosen = []
    for label, count in counts.items():
        members = np.sort(indices[labels[indices] == label])
        order = np.random.default_rng([*seed, label]).permutation(len(members))
        chosen.append(members[order[:count]])
    return np.sort(np.concatenate(chosen)).astype(np.int64) if chosen else np.empty(0, dtype=np.int64)


def _sizes(labels: Indices) -> dict[int, int]:
    values, counts = np.unique(labels, return_counts=True)
    return {int(value): int(count) for value, count in zip(values, counts, strict=True)}


def _num_classes(labels: Indices) -> int:
    return int(labels.max()) + 1 if len(labels) else 0


def _half_up(value: float) -> int:
    return math.floor(value + 0.5)


def _require_classes(labels: Indices, *, names: list[str], part: str) -> None:
    sizes = _sizes(labels)
    if not names:
        raise ValueError(f"the {part} has no classes; give labelled images.")
    empty = [name for label, name in enumerate(names) if sizes.get(label, 0) == 0]
    if empty:
        raise ValueError(
            f"the {part} has no image of class {', '.join(empty)}; add images of it, or change the split settings."
        )
