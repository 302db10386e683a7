"""Choosing samples that differ: so that a quota is not filled with look-alikes.

Shapes: M candidates, N samples that are kept already, D features.
"""

import numpy as np
from numpy.typing import NDArray

from minority.neighbours.pairwise import Features, nearest

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


def k_centre(features: Features, count: int, *, kept: Features | None = None, spacing: float | None = None) -> Int64:
    """Farthest-first choice: each next one is the farthest from everything kept so far (Gonzalez 1985).

    The largest distance of a candidate to its nearest kept one is at most twice the best that any choice of that size
    can reach. Ties go to the first.

    Args:
        features: (M, D) of the candidates.
        count: How many to choose; at most M are.
        kept: (N, D) of what is kept already; without any, the candidate farthest from the mean goes first.
        spacing: The choice ends where the farthest candidate is this near to a kept one, or nearer; None: never.

    Returns:
        (min(count, M),) indices in the order of choice, or fewer where the choice ended.

    Example:
        >>> k_centre(np.array([[0.0], [0.1], [5.0], [9.0]]), 2).tolist()
        [3, 0]
    """
    points = np.asarray(features, dtype=np.float64)
    gaps, chosen = _Gaps(points), list[int]()
    if kept is not None and len(kept):
        gaps.start(nearest(points, np.asarray(kept, dtype=np.float64), k=1)[0][:, 0])
    elif len(points) and count > 0:
        chosen = [int(np.argmax(np.linalg.norm(points - points.mean(axis=0), axis=1)))]
        gaps.add(chosen[0])
    while len(chosen) < min(count, len(points)):
        farthest = int(np.argmax(gaps.values))
        if spacing is not None and gaps.values[farthest] <= spacing:
            break
        chosen.append(farthest)
        gaps.add(farthest)
    return np.array(chosen, dtype=np.int64)


class _Gaps:
    """(M,) `values`: the distance of every point to the nearest chosen one; -1 for the chosen ones.

    A scalar product tells which points a newly chosen one can be nearer to than all before; only their distances are
    computed. They are few after a while, so that a choice costs a matrix-vector product instead of M differences.
    """

    def __init__(self, points: Float64) -> None:
        self._points = points
        self._squares = np.einsum("ij,ij->i", points, points)
        # Rounding moves a square that comes from scalar products by less than this.
        self._slack = 8 * (points.shape[1] + 4) * np.finfo(np.float64).eps * float(self._squares.max(initial=0.0))
        self.start(np.full(len(points), np.inf))

    def start(self, values: Float64) -> None:
        self.values = values
        self._limits = values**2 + self._slack - self._squares

    def add(self, chosen: int) -> None:
        point = self._points[chosen]
        near = np.flatnonzero(self._squares[chosen] - 2.0 * (self._points @ point) <= self._limits)
        distances = np.linalg.norm(self._points[near] - point, axis=1)
        self.values[near] = np.minimum(self.values[near], distances)
        self._limits[near] = self.values[near] ** 2 + self._slack - self._squares[near]
        self.values[chosen], self._limits[chosen] = -1.0, -np.inf


def mean_nearest_distance(features: Features) -> float:
    """Mean distance of each image to its nearest other one: small where a set repeats itself. NaN below two images."""
    if len(features) < 2:
        return float("nan")
    return float(nearest(features, features, k=1, leave_out_self=True)[0].mean())


def projected(features: Features, *, dimensions: int = 32, seed: int = 0) -> NDArray[np.float32]:
    """A short random projection of features that keeps their distances roughly (Johnson & Lindenstrauss 1984).

    Args:
        features: (M, D).
        dimensions: Of the random projection; features of no more dimensions stay as they are.
        seed: Decides the projection.

    Returns:
        (M, dimensions or D).
    """
    if features.shape[1] <= dimensions:
        return np.asarray(features, dtype=np.float32)
    matrix = np.random.default_rng(seed).normal(size=(features.shape[1], dimensions)) / np.sqrt(dimensions)
    short = np.empty((len(features), dimensions), dtype=np.float32)
    for i, row in enumerate(
        features
    ):  # row by row, so that a random projection depends on its image alone, to the last bit
        short[i] = np.asarray(row, dtype=np.float64) @ matrix
    return short
