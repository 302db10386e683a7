"""Splits that keep what belongs together together: by the makers' parts, or by a hash of an identity.

The hash of an identity decides alone: images that come later move no earlier one into another part.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from datasets.readers.imageset import ImageSet
from datasets.splits.stratified import (
    OVER_VALIDATION_CAP,
    THINNED,
    Indices,
    Split,
    SplitSettings,
    capped,
    long_tail,
    make_split,
)

IN_NO_PART = "in none of the makers' parts"


def split_set(image_set: ImageSet, settings: SplitSettings, *, rule: str = "auto") -> Split:
    """Divide a set into training, validation and test part, then give the training part a long tail.

    Args:
        image_set: The set.
        settings: Shares, imbalance (None keeps every image) and seed.
        rule: "parts" (as the set's makers did), "identity" (by the hash of what is shown), "stratified" (by chance,
            class by class), or "auto": the first of these that the set allows.

    Returns:
        Sorted positions of each part. Images of one identity are in one part. Under "parts", validation is drawn from
        training (by identity where there is one) when the makers gave none.

    Raises:
        ValueError: The set lacks what the rule needs, the makers' parts divide an identity, or a class would be empty
            in the training or the test part.
    """
    if rule == "auto":
        rule = "parts" if image_set.parts is not None else "identity" if image_set.identities else "stratified"
    if rule == "stratified":
        if image_set.identities is not None and len(set(image_set.identities)) < len(image_set):
            raise ValueError(f"{image_set.name} shows some things more than once; split it by the rule identity.")
        return make_split(image_set.labels, settings, class_names=image_set.class_names)
    if settings.validation_each is not None:
        raise ValueError(
            f"split.validation_each is for sets that are split by chance, class by class; {image_set.name} is split by "
            f"{rule}. Set validation_fraction instead."
        )
    if rule == "parts":
        split = _by_parts(image_set, settings)
    elif rule == "identity":
        if image_set.identities is None:
            raise ValueError(f"{image_set.name} has no identities; name an identity column or use the rule stratified.")
        split = split_by_identity(
            image_set.identities,
            test_fraction=settings.test_fraction,
            validation_fraction=settings.validation_fraction,
            seed=settings.seed,
        )
    else:
        raise ValueError(f"rule must be auto, parts, identity or stratified, got {rule!r}.")
    train = split.train
    _require_all(image_set, train, part="training")
    _require_all(image_set, split.test, part="test")
    if settings.imbalance is not None:
        train = long_tail(image_set.labels, train, imbalance=settings.imbalance, seed=settings.seed)
    validation = capped(image_set.labels, split.validation, settings)
    left_out = {
        THINNED: np.setdiff1d(split.train, train),
        OVER_VALIDATION_CAP: np.setdiff1d(split.validation, validation),
        IN_NO_PART: np.setdiff1d(
            np.arange(len(image_set)), np.concatenate([split.train, split.validation, split.test])
        ),
    }
    return Split(train=train, validation=validation, test=split.test, left_out=left_out)


def split_by_identity(
    identities: Sequence[str], *, test_fraction: float, validation_fraction: float, seed: int
) -> Split:
    """Divide images by the hash of seed and identity alone.

    Args:
        identities: What each image shows.
        test_fraction: Expected share of identities held out for testing, in [0, 1].
        validation_fraction: Expected share of the other identities set aside for validation, in [0, 1].
        seed: Another seed gives another division.

    Raises:
        ValueError: A share is not in [0, 1].
    """
    for name, share in (("test_fraction", test_fraction), ("validation_fraction", validation_fraction)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {share}.")
    hash_of = {identity: _unit_hash(f"{seed}:{identity}") for identity in set(identities)}
    hashes = np.array([hash_of[identity] for identity in identities], dtype=np.float64)
    test = hashes < test_fraction
    # Where in the rest an identity lies decides about validation.
    rest = (hashes - test_fraction) / max(1 - test_fraction, 1e-12)
    validation = ~test & (rest < validation_fraction)
    return Split(train=_where(~test & ~validation), validation=_where(validation), test=_where(test))


def straddling(identities: Sequence[str], split: Split) -> list[str]:
    """The identities with images in more than one part, sorted; a sound split has none."""
    return straddling_sets([[identities[i] for i in part] for part in (split.train, split.validation, split.test)])


def straddling_sets(parts: Sequence[Sequence[str] | None]) -> list[str]:
    """As `straddling`, given the identities of every part; None for a part that does not say."""
    part_of: dict[str, int] = {}
    divided = set()
    for number, identities in enumerate(parts):
        for identity in identities or ():
            if part_of.setdefault(identity, number) != number:
                divided.add(identity)
    return sorted(divided)


def _by_parts(image_set: ImageSet, settings: SplitSettings) -> Split:
    if image_set.parts is None:
        raise ValueError(f"{image_set.name} has no official parts; name a split column or use another rule.")
    parts = np.array(image_set.parts)
    split = Split(
        train=_where(parts == "train"), validation=_where(parts == "validation"), test=_where(parts == "test")
    )
    if len(split.validation) == 0 and settings.validation_fraction > 0:
        # Without identities every image is one of its own.
        shown = image_set.identities or image_set.source_ids
        inner = split_by_identity(
            [shown[index] for index in split.train],
            test_fraction=0.0,
            validation_fraction=settings.validation_fraction,
            seed=settings.seed,
        )
        split = Split(train=split.train[inner.train], validation=split.train[inner.validation], test=split.test)
    divided = straddling(image_set.identities, split) if image_set.identities is not None else []
    if divided:
        raise ValueError(
            f"the official parts of {image_set.name} divide {len(divided)} identities, first {divided[0]!r}; "
            "split it by the rule identity."
        )
    return split


def _require_all(image_set: ImageSet, indices: Indices, *, part: str) -> None:
    sizes = np.bincount(image_set.labels[indices], minlength=len(image_set.class_names))
    empty = [name for name, size in zip(image_set.class_names, sizes, strict=True) if size == 0]
    if empty:
        raise ValueError(
            f"the {part} part of {image_set.name} has no image of class {', '.join(empty)}; change the seed, the "
            "fractions or the classes."
        )


def _unit_hash(text: str) -> float:
    """A number in [0, 1) that the text alone decides."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def _where(mask: np.ndarray) -> Indices:
    return np.flatnonzero(mask).astype(np.int64)
