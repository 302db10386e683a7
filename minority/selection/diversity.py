"""Choosing samples that differ: so that a quota is not filled with look-alikes.

Shapes: M candidates, N samples that are kept already, D features.
"""

import numpy as np
from numpy.typing import NDArray

from minority.neighbours.pairwise import Features, Pairs, ask, nearest

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


def k_centre(features: Features, count: int, *, kept: Features | None = None) -> Int64:
    """Farthest-first choice: each next one is the farthest from everything kept so far (Gonzalez 1985).

    The largest distance of a candidate to its nearest kept one is at most twice the best that any choice of that size
    can reach. Ties go to the first.

    Args:
        features: (M, D) of the candidates.
        count: How many to choose; at most M are.
        kept: (N, D) of what is kept already; without any, the candidate farthest from the mean goes first.

    Returns:
        (min(count, M),) indices in the order of choice.

    Example:
        >>> k_centre(np.array([[0.0], [0.1], [5.0], [9.0]]), 2).tolist()
        [3, 0]
    """
    points = np.asarray(features, dtype=np.float64)
    if kept is not None and len(kept):
        gap = nearest(points, np.asarray(kept, dtype=np.float64), k=1)[0][:, 0]
    else:
        gap = np.linalg.norm(points - points.mean(axis=0), axis=1) if len(points) else np.empty(0)
    chosen: list[int] = []
    for count_chosen in range(min(count, len(points))):
        if count_chosen:
            to_last = np.linalg.norm(points - points[chosen[-1]], axis=1)
            gap = to_last if count_chosen == 1 and (kept is None or not len(kept)) else np.minimum(gap, to_last)
        gap[chosen] = -1.0
        chosen.append(int(np.argmax(gap)))
    return np.array(chosen, dtype=np.int64)


def look_alikes(features: Features, *, radius: float) -> Int64:
    """Groups of near-duplicates: images linked by chains of distances up to `radius`.

    Args:
        features: (M, D).
        radius: >= 0.

    Returns:
        (M,) the index of the first member of each image's group; its own index where it is alone.
    """
    group = np.arange(len(features))
    near = Pairs(radius)
    ask(features, features, near)
    for i, j in near.pairs.tolist():
        _join(group, i, j)
    return np.array([_root(group, i) for i in range(len(group))], dtype=np.int64)


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


def _root(group: Int64, i: int) -> int:
    while group[i] != i:
        group[i] = group[group[i]]
        i = int(group[i])
    return i


def _join(group: Int64, i: int, j: int) -> None:
    first, second = sorted((_root(group, i), _root(group, j)))
    group[second] = first
