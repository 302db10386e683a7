"""Which candidates resemble each other so much that they are one image drawn again.

Two images no farther apart than a radius lie no farther apart along a few directions, either; so pairs are looked for
along the principal directions, where a k-d tree finds them fast, and then compared in full. Nothing is missed, and
memory does not grow with the number of pairs.

Shapes: M images, D features, P pairs.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from minority.neighbours.pairwise import Features

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_DIRECTIONS = 4  # more prune better, and make the tree slower
_IMAGES_AT_ONCE = 4096
_PAIRS_AT_ONCE = 2**20  # about, as their number is told from every so many images of a part, which lie close together
_COUNTED = 16
_COMPARED_AT_ONCE = 2**15


def look_alikes(features: Features, *, radius: float) -> Int64:
    """Groups of near-duplicates: images linked by chains of distances up to `radius`.

    Args:
        features: (M, D).
        radius: >= 0.

    Returns:
        (M,) the index of the first member of each image's group; its own index where it is alone.
    """
    _, first, same = np.unique(np.asarray(features), axis=0, return_index=True, return_inverse=True)
    points = np.asarray(features)[first].astype(np.float64)
    links = np.empty((0, 2), dtype=np.int64)
    for pairs in _pairs_along_few_directions(points, radius):
        near = _within(points, pairs, radius)
        links = _as_few(np.concatenate([links, near]), len(points)) if len(near) else links
    group = _components(links, len(points))[same.reshape(-1)]
    _, first, same = np.unique(group, return_index=True, return_inverse=True)
    return first[same]


def _pairs_along_few_directions(points: Float64, radius: float) -> Iterator[Int64]:
    """(P, 2) pairs that lie within the radius along the principal directions, part by part; each pair at least once."""
    if len(points) < 2:
        return
    short = _principal(points)
    # The projection shortens distances but for the last bits, which grow with the coordinates.
    reach = radius * (1 + 1e-9) + 1e-9 * float(np.abs(short).max())
    tree = KDTree(short)
    waiting = [tree.indices[start : start + _IMAGES_AT_ONCE] for start in range(0, len(points), _IMAGES_AT_ONCE)]
    while waiting:
        part = waiting.pop()
        some = part[::_COUNTED]
        if len(part) > 1 and len(part) / len(some) * KDTree(short[some]).count_neighbors(tree, reach) > _PAIRS_AT_ONCE:
            waiting += [part[: len(part) // 2], part[len(part) // 2 :]]
            continue
        found = KDTree(short[part]).sparse_distance_matrix(tree, reach, output_type="ndarray")
        pairs = np.stack([part[found["i"]], found["j"]], axis=1).astype(np.int64)
        yield pairs[pairs[:, 0] < pairs[:, 1]]


def _principal(points: Float64) -> Float64:
    """(M, at most _DIRECTIONS) coordinates along the directions in which the points vary most."""
    centred = points - points.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)  # ascending
    return np.ascontiguousarray(centred @ directions[:, -_DIRECTIONS:])


def _within(points: Float64, pairs: Int64, radius: float) -> Int64:
    """Those of the pairs that are no farther apart than the radius in all directions."""
    near = [pairs[:0]]
    for start in range(0, len(pairs), _COMPARED_AT_ONCE):
        part = pairs[start : start + _COMPARED_AT_ONCE]
        near.append(part[np.linalg.norm(points[part[:, 0]] - points[part[:, 1]], axis=1) <= radius])
    return np.concatenate(near)


def _as_few(links: Int64, count: int) -> Int64:
    """Links that join the same images, one a joined image at most."""
    component = _components(links, count)
    joined = np.flatnonzero(component != np.arange(count))
    return np.stack([component[joined], joined], axis=1)


def _components(links: Int64, count: int) -> Int64:
    """(count,) the first member of what each image is joined with."""
    graph = coo_array((np.ones(len(links), dtype=bool), (links[:, 0], links[:, 1])), shape=(count, count))
    _, component = connected_components(graph, directed=False)
    _, first = np.unique(component, return_index=True)
    firsts: Int64 = first[component].astype(np.int64)
    return firsts
