"""Models that know next to nothing, so that a backbone's figures can be read against theirs.

Two of them give an image an exact code length, one draws images:

- each pixel on its own, by the histogram of its values in the training images;
- each pixel on its own, by a normal distribution, binned to the 256 grey levels;
- each class as one normal distribution over whole images.

Shapes: N images of H x W pixels and C channels, D = H * W * C values an image.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

UInt8 = NDArray[np.uint8]
Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

_LEVELS = 256
_CONCENTRATIONS = 2.0 ** np.arange(-4, 15)
_UNIFORM = 0.01  # what the normal model leaves to all levels alike, so that none is impossible
_CHUNK = 512  # images


class PixelHistogram:
    """Every value of every pixel as often as in the training images.

    A value that a pixel never had there is not impossible: the histogram of all pixels together counts as so many
    further images, the number being the one under which each training image, left out, is most likely.

    Args:
        images: (N, H, W, C) uint8 training images, N >= 2.
    """

    def __init__(self, images: UInt8) -> None:
        counts = _count_levels(images)  # (D, 256)
        total = counts.sum(axis=0)
        pooled = (total + 1) / (total.sum() + _LEVELS)
        seen = counts > 0

        def left_out(concentration: float) -> float:
            odds = (counts - 1 + concentration * pooled)[seen] / (len(images) - 1 + concentration)
            return float(-(counts[seen] * np.log2(odds)).sum())

        prior = float(min(_CONCENTRATIONS, key=left_out)) * pooled
        self._bits = -np.log2((counts + prior) / (len(images) + prior.sum()))

    def bits_per_dim(self, images: UInt8) -> Float64:
        """Exact code length (N,) of each image (H, W, C), in bits/dim."""
        return _look_up(self._bits, images)


class PixelNormal:
    """A normal distribution for every pixel, with the training images' mean and variance, binned to grey levels.

    The outermost bins reach to infinity, as in the likelihood of diffusion models (Ho et al. 2020, eq. 13); no
    deviation is below one grey level, and 1 % is spread over all levels evenly.

    Args:
        images: (N, H, W, C) uint8 training images, N >= 1.
    """

    def __init__(self, images: UInt8) -> None:
        counts, levels = _count_levels(images), np.arange(_LEVELS)
        mean = counts @ levels / len(images)
        variance = counts @ levels**2 / len(images) - mean**2
        deviation = np.sqrt(np.maximum(variance, 1.0))
        edges = np.concatenate([[-np.inf], levels[1:] - 0.5, [np.inf]])
        below = norm.cdf(edges[None, :], loc=mean[:, None], scale=deviation[:, None])
        self._bits = -np.log2((1 - _UNIFORM) * np.diff(below, axis=1) + _UNIFORM / _LEVELS)

    def bits_per_dim(self, images: UInt8) -> Float64:
        """Exact code length (N,) of each image (H, W, C), in bits/dim."""
        return _look_up(self._bits, images)


def draw_class_normals(images: UInt8, labels: Int64, *, wanted: Int64, seed: int) -> UInt8:
    """Images of a normal distribution a class, with the mean and the full covariance of its training images.

    Args:
        images: (N, H, W, C) uint8 training images.
        labels: (N,) their classes.
        wanted: (M,) class of each image to draw; each has a training image.
        seed: Decides the draws.

    Returns:
        (M, H, W, C) uint8, rounded and clipped. A class of one image gives that image.
    """
    rng = np.random.default_rng(seed)
    drawn = np.empty((len(wanted), *images.shape[1:]), dtype=np.uint8)
    for label in np.unique(wanted):
        members, of_label = images[labels == label], np.flatnonzero(wanted == label)
        flat = members.reshape(len(members), -1).astype(np.float32)
        mean = flat.mean(axis=0)
        # Weighted by standard normal numbers, the deviations themselves have their own covariance.
        weights = rng.standard_normal((len(of_label), len(flat)), dtype=np.float32) / max(1, len(flat) - 1) ** 0.5
        values = mean + weights @ (flat - mean)
        drawn[of_label] = np.clip(np.rint(values), 0, 255).astype(np.uint8).reshape(-1, *images.shape[1:])
    return drawn


def pick_of_classes(labels: Int64, *, wanted: Int64, seed: int) -> Int64:
    """Positions (M,) of training images of the wanted classes: each once before any of its class comes again.

    Args:
        labels: (N,) classes of the training images.
        wanted: (M,) class of each image to pick; each has a training image.
        seed: Decides which.
    """
    rng = np.random.default_rng(seed)
    picked = np.empty(len(wanted), dtype=np.int64)
    for label in np.unique(wanted):
        of_label = np.flatnonzero(wanted == label)
        picked[of_label] = np.resize(rng.permutation(np.flatnonzero(labels == label)), len(of_label))
    return picked


def _count_levels(images: UInt8) -> Float64:
    """How often each of the D values has each of the 256 levels, (D, 256)."""
    flat = images.reshape(len(images), -1)
    cells = np.arange(flat.shape[1]) * _LEVELS
    counts = np.zeros(flat.shape[1] * _LEVELS)
    for start in range(0, len(flat), _CHUNK):
        cells_of = (cells + flat[start : start + _CHUNK]).ravel()
        counts += np.bincount(cells_of, minlength=len(counts))
    return counts.reshape(-1, _LEVELS)


def _look_up(bits: Float64, images: UInt8) -> Float64:
    flat = images.reshape(len(images), -1)
    return np.array([bits[np.arange(len(bits)), image].mean() for image in flat])
