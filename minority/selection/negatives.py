"""Images that look almost real and are not: what a discriminator learns to refuse.

They are made of real training images alone, so a discriminator needs no generated sample, and does not learn one
generator's habits.

Shapes: N images, H x W pixels, C channels.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]

BLENDS, NOISY, NOISE, MIRRORED = "blend", "noisy image", "noise", "mirrored image"
_AT_ONCE = 1024
#: How often each kind is drawn, relative to the others.
_SHARES = {BLENDS: 0.5, NOISY: 0.15, NOISE: 0.1, MIRRORED: 0.25}


class SyntheticNegatives(NamedTuple):
    """Made images (F, H, W, C) uint8, their kinds, and (F,) odds of drawing each, which sum to 1."""

    images: UInt8
    kinds: list[str]
    odds: NDArray[np.float64]


def make_negatives(images: UInt8, *, seed: int, mirrored: bool) -> SyntheticNegatives:
    """Spoil real images in every way.

    Args:
        images: (N, H, W, C) uint8 real images, N >= 2.
        seed: Decides all draws.
        mirrored: Whether a mirrored image is a negative: true for digits, false for faces and rooms.

    Raises:
        ValueError: For fewer than two images, of which no blend can be made.
    """
    if len(images) < 2:
        raise ValueError(f"synthetic negatives are made of at least 2 real images, got {len(images)}.")
    rng = np.random.default_rng(seed)
    made = {
        BLENDS: blends(images, rng, count=2 * len(images)),
        NOISY: noisy(images, rng),
        NOISE: pure_noise(images, rng, count=max(8, len(images) // 2)),
    }
    if mirrored:
        made[MIRRORED] = np.ascontiguousarray(images[:, :, ::-1])
    odds = np.concatenate([np.full(len(part), _SHARES[kind] / len(part)) for kind, part in made.items()])
    kinds = [kind for kind, part in made.items() for _ in range(len(part))]
    return SyntheticNegatives(np.concatenate(list(made.values())), kinds, odds / odds.sum())


def blends(images: UInt8, rng: np.random.Generator, *, count: int, edge: float = 0.2) -> UInt8:
    """Weighted means of two different images.

    Args:
        images: (N, H, W, C), N >= 2.
        rng: Source of the draws.
        count: How many.
        edge: The weight of either is at least this, in (0, 0.5].
    """
    first = rng.integers(len(images), size=count)
    second = (first + rng.integers(1, len(images), size=count)) % len(images)
    weight = rng.uniform(edge, 1 - edge, size=(count, 1, 1, 1))
    blended = np.empty((count, *images.shape[1:]), dtype=np.uint8)
    for some in _parts(count):
        blended[some] = _to_uint8(weight[some] * images[first[some]] + (1 - weight[some]) * images[second[some]])
    return blended


def noisy(images: UInt8, rng: np.random.Generator, *, low: float = 8.0, high: float = 80.0) -> UInt8:
    """Every image with normal noise of its own strength, log-uniform between `low` and `high` grey levels."""
    strength = np.exp(rng.uniform(np.log(low), np.log(high), size=(len(images), 1, 1, 1)))
    spoiled = np.empty_like(images)
    for some in _parts(len(images)):
        spoiled[some] = _to_uint8(images[some] + strength[some] * rng.normal(size=images[some].shape))
    return spoiled


def pure_noise(images: UInt8, rng: np.random.Generator, *, count: int) -> UInt8:
    """Uniform noise, normal noise with the images' mean and spread, and the pixels of single images shuffled."""
    shape = (count, *images.shape[1:])
    uniform = rng.integers(0, 256, size=shape).astype(np.uint8)
    normal = _to_uint8(rng.normal(images.mean(), images.std() + 1, size=shape))
    source = images[rng.integers(len(images), size=count)].reshape(count, -1)
    shuffled = rng.permuted(source, axis=1).reshape(shape)
    return np.stack([uniform, normal, shuffled], axis=1).reshape(-1, *images.shape[1:])[:count]


def _parts(count: int) -> Iterator[slice]:
    """Some images at a time, since what is computed of them takes eight times their memory."""
    return (slice(start, start + _AT_ONCE) for start in range(0, count, _AT_ONCE))


def _to_uint8(values: NDArray[np.floating]) -> UInt8:
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)
