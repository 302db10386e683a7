"""The exact answer for a few reference points, and how far what was found is from it.

Shapes: S points of the reference, N reference points, D features, k neighbours.
"""

import numpy as np
from numpy.typing import NDArray

from minority.neighbours.pairwise import Features, Float64, Int64, nearest
from minority.neighbours.widest_balls import as_float32, chunks

_ROUNDING = 1e-5  # of a distance in 32 bits, relative


def recall_of(exact: Float64, found: NDArray[np.floating]) -> float:
    """Share of (S, k) found distances that are no larger than that to the k-th nearest: equal points are all right."""
    return float((found <= exact[:, -1:] * (1 + _ROUNDING)).mean())


def excess_of(exact: Float64, found: NDArray[np.floating]) -> Float64:
    """(S,) by how much the mean of (S, k) found distances is too large, relative; 0 where the exact one is 0."""
    true, approximate = exact.mean(axis=1), found.mean(axis=1, dtype=np.float64)
    return np.where(true > 0, np.maximum(approximate / np.where(true > 0, true, 1) - 1, 0), 0)


def exact_own(features: Features, sample: Int64, *, k: int) -> tuple[Float64, Int64]:
    """(S, k) distances of some reference points to their nearest others, and (S, k) which those are."""
    points = as_float32(features[sample])
    kept = np.full((len(sample), k), np.inf), np.full((len(sample), k), -1, dtype=np.int64)
    for rows, part in chunks(features):
        distances, indices = nearest(points, part, k=min(k + 1, len(part)))
        indices += rows.start
        distances = np.where(indices == sample[:, None], np.inf, distances)
        both = np.concatenate([kept[0], distances], axis=1), np.concatenate([kept[1], indices], axis=1)
        order = np.argsort(both[0], axis=1, kind="stable")[:, :k]
        kept = np.take_along_axis(both[0], order, axis=1), np.take_along_axis(both[1], order, axis=1)
    return kept
