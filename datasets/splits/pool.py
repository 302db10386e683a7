"""A pool set aside from a set first: what a pretrained backbone saw, disjoint from everything that its user holds.

With one set at hand, the two sides of the pretrained premise are its two parts: the pool plays the public images that
somebody's model was trained on, the rest plays the user's set, which is then split as any other.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from datasets.readers.imageset import ImageSet
from datasets.splits.identity_split import split_by_identity
from datasets.splits.stratified import Indices, stratified_split
from datasets.splits.streams import Stream

IN_THE_POOL, OUTSIDE_THE_POOL = "in the pool of the pretrained backbone", "outside the pool (the user's)"


@dataclass(frozen=True, kw_only=True)
class PoolSettings:
    """How a pool is set aside.

    Attributes:
        take: Which side is read: "pool" to train a backbone, "user" for everything else.
        fraction: Share of every class that is the pool, in (0, 1); images that the set's makers meant for testing are
            never in it. Of sets with identities, a share of these.
        seed: The same seed and images give the same pool.
    """

    take: Literal["pool", "user"] = "user"
    fraction: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise ValueError(f"PoolSettings.fraction must be between 0 and 1, got {self.fraction}.")
        if self.seed < 0:
            raise ValueError(f"PoolSettings.seed must be at least 0, got {self.seed}.")


def pool_and_user(images: ImageSet, settings: PoolSettings) -> tuple[Indices, Indices]:
    """Divide a set. Returns the sorted positions (pool, user); no image and no identity is in both.

    Example:
        >>> from datasets.readers.digits import read_digits
        >>> pool, user = pool_and_user(read_digits(), PoolSettings(fraction=0.5))
        >>> len(pool), len(user), len(set(pool) & set(user))
        (901, 896, 0)
    """
    everything = np.arange(len(images), dtype=np.int64)
    tests = {i for i, part in enumerate(images.parts or ()) if part == "test"}
    open_to_all = np.array([i for i in everything if i not in tests], dtype=np.int64)
    if images.identities is None:
        _, chosen = stratified_split(
            images.labels[open_to_all], test_fraction=settings.fraction, seed=settings.seed + _POOL_SEEDS
        )
    else:
        kept_out = {images.identities[i] for i in tests}
        names = [images.identities[i] for i in open_to_all]
        split = split_by_identity(
            names, test_fraction=settings.fraction, validation_fraction=0.0, seed=settings.seed + _POOL_SEEDS
        )
        chosen = np.array([i for i in split.test if names[i] not in kept_out], dtype=np.int64)
    pool = np.sort(open_to_all[chosen])
    return pool, np.setdiff1d(everything, pool)


#: Pools are drawn with seeds far from those of splits, so that a split of the same seed is another draw.
_POOL_SEEDS = 1_000_003 * (int(Stream.POOL) + 1)
