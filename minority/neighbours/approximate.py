"""Nearest neighbours among so many real images that not every pair can be compared: faiss' inverted file.

The reference points are clustered, and a point is compared with those of the clusters nearest to it (IVF; Jegou, Douze
and Schmid, TPAMI 2011; Douze et al., "The Faiss library", 2024). How many clusters are looked at follows from a sample
of the reference points whose neighbours are known exactly.

Rare points lie between clusters, where more is missed. So whatever lies as far from its neighbours as the sparsest
tenth of the reference is looked up once more, in many more clusters, and the sparsest of all are compared with
everything.

What can be missed, and which way it errs: a missed neighbour makes distances too large, of the training images and of
the candidates alike (`Accuracy.overestimate`). Ratios and balls are asked of the nearest `_CANDIDATES` found and of the
`WIDEST` reference points with the largest radii, which are compared exactly: realism can only come out too small, and
a smallest ball no smaller than the farthest candidate is exact unless a neighbour was missed.

Shapes: M points, N reference points, D features.
"""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from minority.neighbours.index import Accuracy, Bool, Surroundings
from minority.neighbours.pairwise import Features, Float64, Int64, nearest
from minority.neighbours.widest_balls import QUERIES, SPARSE, WIDEST, WidestBalls, as_float32, chunks, ratios_and_balls

Search = Literal["auto", "exact", "faiss"]
#: Reference points up to which every pair is compared.
EXACT_LIMIT = 50_000
_CANDIDATES = 32  # neighbours that ratios and balls are asked of
_TRAINED_ON = 64  # reference points a cluster that the clustering sees
_SAMPLE = 512  # reference points whose neighbours are looked up exactly
_RECALL = 0.99
_MORE = 8  # times as many clusters as the first time
_HELD_BYTES = 2**29  # lists up to this size are held in memory; larger ones are mapped from files of this size


def is_approximate(search: Search, count: int) -> bool:
    """Whether neighbours among so many reference points are looked up by clusters.

    Args:
        search: "exact" or "faiss", or "auto": exact up to `EXACT_LIMIT` reference points.
        count: How many there are.
    """
    return search == "faiss" or (search == "auto" and count > EXACT_LIMIT)


@dataclass(frozen=True, eq=False)
class Clusters:
    """What decides an approximate index, small enough to be handed on: every worker that has it finds the same.

    Attributes:
        centroids: (L, D) float32.
        assignments: (N,) int32, the cluster of every reference point.
        probes: Clusters that are looked at for each point.
    """

    centroids: NDArray[np.float32]
    assignments: NDArray[np.int32]
    probes: int


def cluster(features: Features, *, k: int, seed: int = 0, folder: Path | None = None) -> Clusters:
    """Cluster the reference points, and find out how many clusters have to be looked at.

    Args:
        features: (N, D), N above 1,000; may be mapped from a file.
        k: Neighbours that will be asked for.
        seed: Decides the clustering and the sample.
        folder: Where lists that are too large for memory may lie.

    Raises:
        ValueError: faiss is not installed.
    """
    faiss = _faiss()
    count, dimensions = features.shape
    lists = int(2 * np.sqrt(count))
    rng = np.random.default_rng(seed)
    seen = np.sort(rng.permutation(count)[: _TRAINED_ON * lists])
    kmeans = faiss.Kmeans(
        dimensions,
        lists,
        niter=10,
        seed=seed + 1,
        min_points_per_centroid=1,
        max_points_per_centroid=_TRAINED_ON,
    )
    kmeans.train(as_float32(features[seen]))
    centroids: NDArray[np.float32] = kmeans.centroids
    quantizer = faiss.IndexFlatL2(dimensions)
    quantizer.add(centroids)
    parts = [quantizer.search(part, 1)[1][:, 0].astype(np.int32) for _, part in chunks(features)]
    index = ApproximateIndex(features, Clusters(centroids, np.concatenate(parts), 1), folder=folder)
    sample = np.sort(rng.choice(count, size=min(_SAMPLE, count), replace=False))
    return replace(index.clusters, probes=index.enough_probes(sample, k=k))


class ApproximateIndex:
    """Looks up neighbours in the clusters nearest to a point.

    Args:
        features: (N, D), may be mapped from a file.
        clusters: Of these points.
        accuracy: As it was measured when `own` was asked; that measures it anew.
        folder: Where lists that are too large for memory may lie; the system's temporary folder where not given.

    Raises:
        ValueError: faiss is not installed, or the clusters are of other points.
    """

    def __init__(
        self, features: Features, clusters: Clusters, *, accuracy: Accuracy | None = None, folder: Path | None = None
    ) -> None:
        if (len(features), features.shape[1]) != (len(clusters.assignments), clusters.centroids.shape[1]):
            raise ValueError(
                f"the clusters are of {len(clusters.assignments)} points of {clusters.centroids.shape[1]} features, "
                f"got {features.shape}."
            )
        self.features, self.clusters = features, clusters
        self.accuracy = accuracy or Accuracy()
        self._faiss = _faiss()
        # Without BLAS, whose rounding depends on the number of points that are looked up together.
        self._faiss.cvar.distance_compute_blas_threshold = 2**30
        self._num_lists = len(clusters.centroids)
        self._lists = self._filled(clusters, folder)
        self._edge: tuple[Float64, WidestBalls] | None = None

    def of_training(self, k: int) -> tuple[Surroundings, Float64]:
        """See `Index`."""
        count = len(self.features)
        candidates = np.empty((count, min(_CANDIDATES, count - 1)), dtype=np.int32)
        gaps = np.empty(candidates.shape, dtype=np.float32)
        for rows, part in chunks(self.features):
            gaps[rows], candidates[rows] = self._others(part, np.arange(rows.start, rows.stop), candidates.shape[1])
        sparse = np.flatnonzero(gaps[:, k - 1] > np.quantile(gaps[:, k - 1], SPARSE))
        self._look_again(sparse, gaps, candidates, probes=_MORE * self.clusters.probes)
        sparsest = np.sort(sparse[np.argsort(-gaps[sparse, k - 1], kind="stable")[:WIDEST]])
        self._look_again(sparsest, gaps, candidates, probes=self._num_lists)
        radii = gaps[:, k - 1].astype(np.float64)
        edge = self._edge_of(radii)
        ratios, smallest = np.empty(count), np.empty(count)
        for rows, part in chunks(self.features):
            ratios[rows], smallest[rows] = ratios_and_balls(gaps[rows], radii[candidates[rows]])
            edge.improve(part, ratios[rows], smallest[rows], first=rows.start)
        near = Surroundings(gaps[:, :k].astype(np.float64), candidates[:, :k].astype(np.int64), ratios, smallest)
        self.accuracy = self._measured(near, sparse)
        return near, radii

    def around(self, points: Features, radii: Float64, *, k: int) -> Surroundings:
        """See `Index`."""
        asked, edge = as_float32(points), self._edge_of(radii)
        count = max(k, min(_CANDIDATES, len(self.features)))
        gaps, indices = self._search(asked, count)
        again = np.flatnonzero(gaps[:, k - 1] > edge.sparse)
        if len(again):
            gaps[again], indices[again] = self._search(asked[again], count, probes=_MORE * self.clusters.probes)
        ratios, smallest = ratios_and_balls(gaps, radii[indices])
        edge.improve(asked, ratios, smallest)
        return Surroundings(gaps[:, :k].astype(np.float64), indices[:, :k], ratios, smallest)

    def nearest(self, points: Features, *, leave_out_self: bool = False) -> tuple[Float64, Int64]:
        """See `Index`."""
        distances, indices = np.empty(len(points)), np.empty(len(points), dtype=np.int64)
        for rows, part in chunks(points):
            if leave_out_self:
                gaps, nearest_ones = self._others(part, np.arange(rows.start, rows.stop), 1)
            else:
                gaps, nearest_ones = self._search(part, 1)
            distances[rows], indices[rows] = gaps[:, 0], nearest_ones[:, 0]
        return distances, indices

    def nearest_among(self, points: Features, members: Bool) -> Float64:
        """See `Index`. Looks at all clusters for points that have no member in the nearest ones."""
        if not members.any():
            return np.full(len(points), np.inf)
        asked = as_float32(points)
        bitmap = np.packbits(members, bitorder="little")
        selector = self._faiss.IDSelectorBitmap(len(members), self._faiss.swig_ptr(bitmap))
        gaps, indices = self._search(asked, 1, selector=selector)
        missed = np.flatnonzero(indices[:, 0] < 0)
        if len(missed):
            gaps[missed], indices[missed] = self._search(asked[missed], 1, selector=selector, probes=self._num_lists)
        return gaps[:, 0].astype(np.float64)

    def enough_probes(self, sample: Int64, *, k: int) -> int:
        """How many clusters must be looked at, so that nearly all neighbours of some reference points are found.

        Args:
            sample: (S,) positions of reference points.
            k: Neighbours.
        """
        points, exact = as_float32(self.features[sample]), _exact_own(self.features, sample, k=k)[1]
        probes, most = 8, self._num_lists
        while probes < most and _recall(exact, self._others(points, sample, k, probes=probes)[1]) < _RECALL:
            probes = min(2 * probes, most)
        return min(probes, most)

    def _measured(self, near: Surroundings, sparse: Int64) -> Accuracy:
        """How well the neighbours of the reference were found, on some of all and some of the sparse ones."""
        rng, k = np.random.default_rng(0), near.indices.shape[1]
        recalls, excess = [], []
        for positions in (np.arange(len(self.features)), sparse):
            sample = np.sort(rng.choice(positions, size=min(_SAMPLE, len(positions)), replace=False))
            distances, exact = _exact_own(self.features, sample, k=k)
            recalls.append(_recall(exact, near.indices[sample]))
            true, approximate = distances.mean(axis=1), near.distances[sample].mean(axis=1)
            excess.append(np.where(true > 0, np.maximum(approximate / np.where(true > 0, true, 1) - 1, 0), 0))
        return Accuracy(
            recall=recalls[0],
            rare_recall=recalls[1],
            overestimate=float(excess[0].mean()),
            worst=float(np.concatenate(excess).max()),
            sample=min(_SAMPLE, len(sparse)),
        )

    def _look_again(
        self, positions: Int64, gaps: NDArray[np.float32], indices: NDArray[np.int32], *, probes: int
    ) -> None:
        """Look reference points up in more clusters, in place."""
        for start in range(0, len(positions), QUERIES):
            some = positions[start : start + QUERIES]
            points = as_float32(self.features[some])
            gaps[some], indices[some] = self._others(points, some, gaps.shape[1], probes=probes)

    def _edge_of(self, radii: Float64) -> "WidestBalls":
        """The edge of the reference, which is the same whenever the radii are."""
        if self._edge is None or self._edge[0] is not radii:
            self._edge = (radii, WidestBalls(self.features, radii))
        return self._edge[1]

    def _search(
        self, points: NDArray[np.float32], k: int, *, selector: Any = None, probes: int | None = None
    ) -> tuple[NDArray[np.float32], Int64]:
        """(M, k) distances, ascending, infinite where fewer are found, and (M, k) indices, -1 there."""
        chosen = {} if selector is None else {"sel": selector}
        probes = min(probes or self.clusters.probes, self._num_lists)
        parameters = self._faiss.SearchParametersIVF(nprobe=probes, **chosen)
        answers = [index.search(points, k, params=parameters) for index in self._lists]
        squared, indices = (np.concatenate(part, axis=1) for part in zip(*answers, strict=True))
        squared[indices < 0] = np.inf
        if len(answers) > 1:
            order = np.argsort(squared, axis=1, kind="stable")[:, :k]
            squared, indices = np.take_along_axis(squared, order, axis=1), np.take_along_axis(indices, order, axis=1)
        return np.sqrt(np.maximum(squared, 0)), indices

    def _others(
        self, points: NDArray[np.float32], positions: Int64, k: int, *, probes: int | None = None
    ) -> tuple[NDArray[np.float32], Int64]:
        """The same among all but each point itself."""
        gaps, indices = self._search(points, k + 1, probes=probes)
        is_self = indices == positions[:, None]
        is_self[~is_self.any(axis=1), -1] = True  # among many copies: leave out the last
        return gaps[~is_self].reshape(-1, k), indices[~is_self].reshape(-1, k)

    def _filled(self, clusters: Clusters, folder: Path | None) -> list[Any]:
        """The lists: one index in memory, or several that are mapped from files.

        A file has no name any more once it is mapped: its space is free when the process ends, however it ends.
        """
        faiss, dimensions = self._faiss, self.features.shape[1]
        self._quantizer = faiss.IndexFlatL2(dimensions)  # the lists do not own it
        self._quantizer.add(np.ascontiguousarray(clusters.centroids))
        held = max(1, _HELD_BYTES // (4 * dimensions))  # points
        filled = []
        for start in range(0, len(self.features), held):
            index = faiss.IndexIVFFlat(self._quantizer, dimensions, len(clusters.centroids), faiss.METRIC_L2)
            index.is_trained = True
            for rows, part in chunks(self.features, start, start + held):
                ids = np.arange(rows.start, rows.stop, dtype=np.int64)
                lists = clusters.assignments[rows].astype(np.int64)
                index.add_core(len(part), *(faiss.swig_ptr(array) for array in (part, ids, lists)))
            if len(self.features) > held:
                with tempfile.TemporaryDirectory(dir=folder, prefix="neighbours-") as files:
                    faiss.write_index(index, str(Path(files, "lists")))
                    index = faiss.read_index(str(Path(files, "lists")), faiss.IO_FLAG_MMAP)
            filled.append(index)
        return filled


def _recall(exact: Int64, approximate: NDArray[np.integer]) -> float:
    """Share of the (S, k) exact neighbours that are found."""
    hits = [len(set(a) & set(b)) for a, b in zip(exact.tolist(), approximate.tolist(), strict=True)]
    return float(np.mean(hits)) / exact.shape[1]


def _exact_own(features: Features, sample: Int64, *, k: int) -> tuple[Float64, Int64]:
    """(S, k) distances of some reference points to their nearest others, and (S, k) which those are."""
    points = np.asarray(features[sample])
    kept = np.full((len(sample), k), np.inf), np.full((len(sample), k), -1, dtype=np.int64)
    for rows, part in chunks(features):
        distances, indices = nearest(points, part, k=min(k + 1, len(part)))
        indices += rows.start
        distances = np.where(indices == sample[:, None], np.inf, distances)
        both = np.concatenate([kept[0], distances], axis=1), np.concatenate([kept[1], indices], axis=1)
        order = np.argsort(both[0], axis=1, kind="stable")[:, :k]
        kept = np.take_along_axis(both[0], order, axis=1), np.take_along_axis(both[1], order, axis=1)
    return kept


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ValueError(
            f"more than {EXACT_LIMIT:,} real images are looked up by faiss, which is not installed; run "
            "pip install 'minority-augment[scale]', or set selection.search to exact, which takes long."
        ) from error
    return faiss
