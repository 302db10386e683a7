"""The reference points with the largest radii, which are compared with every point, near or far; and points in parts.

Shapes: M points, N reference points, D features.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from minority.neighbours.pairwise import Features, Float64

WIDEST = 1024  # reference points with the largest radii, which are always asked
QUERIES = 4096  # points that are looked up at once
SPARSE = 0.9  # quantile of the radii beyond which a point is looked up again
_CHUNK = 65_536  # reference points that are read at once


class WidestBalls:
    """The reference points with the largest radii, which looking at near ones alone could miss."""

    def __init__(self, features: Features, radii: Float64) -> None:
        self.positions = np.sort(np.argpartition(-radii, min(WIDEST, len(radii)) - 1)[:WIDEST])
        self.points = as_float32(features[self.positions]).astype(np.float64)
        self.radii = radii[self.positions]
        self.sparse = float(np.quantile(radii, SPARSE))

    def improve(self, points: Features, ratios: Float64, smallest: Float64, *, first: int | None = None) -> None:
        """Take them into account, in place.

        Args:
            points: (M, D).
            ratios: (M,) largest ratios so far.
            smallest: (M,) smallest balls so far.
            first: Position of the first point in the reference, where the points are of it: none is its own neighbour.
        """
        for start in range(0, len(points), QUERIES):
            rows = slice(start, min(start + QUERIES, len(points)))
            part = np.asarray(points[rows], dtype=np.float64)
            if first is None:  # plain differences, whose rounding does not depend on the number of points
                gap = cdist(part, self.points)
            else:
                squared = (part**2).sum(axis=1)[:, None] + (self.points**2).sum(axis=1) - 2 * part @ self.points.T
                gap = np.sqrt(np.maximum(squared, 0))
                gap[np.arange(first + rows.start, first + rows.stop)[:, None] == self.positions] = np.inf
            reached = ratios_and_balls(gap, np.broadcast_to(self.radii, gap.shape))
            ratios[rows] = np.maximum(ratios[rows], reached[0])
            smallest[rows] = np.minimum(smallest[rows], reached[1])


def ratios_and_balls(gaps: NDArray[np.floating], radii: Float64) -> tuple[Float64, Float64]:
    """(M,) largest ratio of radius to distance, and (M,) smallest radius that reaches, for (M, m) of each."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(gaps > 0, radii / gaps, np.inf)
    ball = np.where(gaps <= radii, radii, np.inf)
    return ratio.max(axis=1).astype(np.float64), ball.min(axis=1).astype(np.float64)


def chunks(features: Features, first: int = 0, last: int | None = None) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """The points from `first` up to `last`, part by part: which they are, and (m, D) their features."""
    end = len(features) if last is None else min(last, len(features))
    for start in range(first, end, _CHUNK):
        rows = slice(start, min(start + _CHUNK, end))
        yield rows, as_float32(features[rows])


def as_float32(features: Features) -> NDArray[np.float32]:
    """The same features as faiss takes them: 32 bits, row by row in memory."""
    return np.ascontiguousarray(features, dtype=np.float32)
