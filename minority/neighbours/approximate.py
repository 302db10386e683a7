"""Nearest neighbours among so many real images that not every pair can be compared: faiss' HNSW graph.

Every reference point is linked to some near ones, at several levels of coarseness, and a search walks along the links
towards the point that it is asked for (hierarchical navigable small world graph; Malkov and Yashunin, TPAMI 2020; Douze
et al., "The Faiss library", 2024). How many points a search keeps in view follows from a sample of the reference points
whose neighbours are known exactly.

Rare points have few links to them, so more is missed there. Whatever lies as far from its neighbours as the sparsest
tenth of the reference is looked up once more, with many more points in view, and the sparsest of all are compared with
everything.

What can be missed, and which way it errs: a missed neighbour makes distances too large, of the training images and of
the candidates alike (`Accuracy.overestimate`). That is measured on reference points, which are linked to their own
neighbours; of other points a little more may be missed. Ratios and balls are asked of the nearest `_CANDIDATES` found
and of the `WIDEST` reference points with the largest radii, which are compared exactly: realism comes out too small
where a point is missed, and too large by no more than the radii are; a smallest ball no smaller than the farthest
candidate is exact unless a neighbour was missed.

Shapes: M points, N reference points, D features.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from minority.neighbours.against_exact import exact_own, excess_of, recall_of
from minority.neighbours.index import Accuracy, Bool, Surroundings
from minority.neighbours.pairwise import Features, Float64, Int64, nearest
from minority.neighbours.widest_balls import QUERIES, SPARSE, WIDEST, WidestBalls, as_float32, chunks, ratios_and_balls

Search = Literal["auto", "exact", "faiss"]
#: Reference points up to which every pair is compared.
EXACT_LIMIT = 50_000
_CANDIDATES = 32  # neighbours that ratios and balls are asked of
_LINKS = 32  # of a point at each level; twice as many at the finest (M of the paper)
_BUILT_WITH = 100  # points in view while links are chosen (efConstruction)
_FEWEST_IN_VIEW = 48
_MOST_IN_VIEW = 4096
_SAMPLE = 512  # reference points whose neighbours are looked up exactly
_RECALL = 0.95
_OVERESTIMATE = 5e-4  # of mean distances
_MORE = 8  # times as many points in view as the first time
_FEW_MEMBERS = 4096  # members of a label up to which a point is compared with all of them


def is_approximate(search: Search, count: int) -> bool:
    """Whether neighbours among so many reference points are looked up in a graph.

    Args:
        search: "exact" or "faiss", or "auto": exact up to `EXACT_LIMIT` reference points.
        count: How many there are.
    """
    return search == "faiss" or (search == "auto" and count > EXACT_LIMIT)


@dataclass(frozen=True, eq=False)
class Graph:
    """What decides an approximate index and is not the features: every worker that has it finds the same.

    Attributes:
        links: (B,) uint8, the graph in faiss' own format, without the points.
        in_view: Points that a search keeps in view (efSearch).
    """

    links: NDArray[np.uint8]
    in_view: int


def connect(features: Features, *, k: int, seed: int = 0) -> Graph:
    """Link the reference points, and find out how many must be kept in view.

    One thread links them, since the order of insertion decides the graph. Meanwhile faiss holds the points once more,
    in 32 bits: links of rounded points miss neighbours in tight clusters.

    Args:
        features: (N, D), N above 1,000; may be mapped from a file.
        k: Neighbours that will be asked for.
        seed: Decides the sample.

    Raises:
        ValueError: faiss is not installed.
    """
    faiss = _faiss()
    count, dimensions = features.shape
    rng = np.random.default_rng(seed)
    sample = np.sort(rng.choice(count, size=min(_SAMPLE, count), replace=False))
    graph = faiss.IndexHNSWFlat(dimensions, _LINKS)
    graph.hnsw.efConstruction = _BUILT_WITH
    with _one_thread(faiss):
        for _, part in chunks(features):
            graph.add(part)
    found = Graph(faiss.serialize_index(graph, faiss.IO_FLAG_SKIP_STORAGE), _FEWEST_IN_VIEW)
    del graph
    return replace(found, in_view=ApproximateIndex(features, found).enough_in_view(sample, k=k))


class ApproximateIndex:
    """Looks up neighbours along the links of a graph.

    Args:
        features: (N, D), may be mapped from a file: they are read where they lie.
        graph: Of these points; it may be mapped from a file, too.
        accuracy: As it was measured when `of_training` was asked; that measures it anew.

    Raises:
        ValueError: faiss is not installed, or the graph is of another number of points.
    """

    def __init__(self, features: Features, graph: Graph, *, accuracy: Accuracy | None = None) -> None:
        self.features, self.graph = features, graph
        self.accuracy = accuracy or Accuracy()
        self._faiss = _faiss()
        self._points = as_float32(features)  # the features themselves where they are of 32 bits, else a copy
        self._linked = self._opened()
        if (self._linked.ntotal, self._linked.d) != self._points.shape:
            raise ValueError(
                f"the graph is of {self._linked.ntotal} points of {self._linked.d} features, got {features.shape}."
            )
        self._linked.storage = self._storage = self._flat()
        self._linked.own_fields = False
        self._edge: tuple[Float64, WidestBalls] | None = None

    def of_training(self, k: int) -> tuple[Surroundings, Float64]:
        """See `Index`."""
        count = len(self.features)
        candidates = np.empty((count, min(max(k, _CANDIDATES), count - 1)), dtype=np.int32)
        gaps = np.empty(candidates.shape, dtype=np.float32)
        for rows, part in chunks(self.features):
            gaps[rows], candidates[rows] = self._others(part, np.arange(rows.start, rows.stop), candidates.shape[1])
        sparse = np.flatnonzero(gaps[:, k - 1] > np.quantile(gaps[:, k - 1], SPARSE))
        self._look_again(sparse, gaps, candidates)
        sparsest = np.sort(sparse[np.argsort(-gaps[sparse, k - 1], kind="stable")[:WIDEST]])
        if len(sparsest):
            gaps[sparsest], candidates[sparsest] = exact_own(self.features, sparsest, k=candidates.shape[1])
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
            gaps[again], indices[again] = self._search(asked[again], count, in_view=_MORE * self.graph.in_view)
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
        """See `Index`. A few members are all compared.

        Of many, the nearest is right where it is in view. Another one is at least as far as everything in view, and
        looked for with more points in view, whatever they are: its distance may come out too large.
        """
        if not members.any():
            return np.full(len(points), np.inf)
        asked, distances = as_float32(points), np.full(len(points), np.inf, dtype=np.float32)
        if np.count_nonzero(members) > _FEW_MEMBERS:
            gaps, indices = self._search(asked, min(self.graph.in_view, len(members)))
            in_view = members[indices] & (indices >= 0)
            distances = np.where(in_view.any(axis=1), gaps[np.arange(len(gaps)), in_view.argmax(axis=1)], np.inf)
            far = np.flatnonzero(np.isinf(distances))
            if len(far):
                bitmap = np.packbits(members, bitorder="little")
                selector = self._faiss.IDSelectorBitmap(len(members), self._faiss.swig_ptr(bitmap))
                more = _MORE * self.graph.in_view
                distances[far] = self._search(asked[far], 1, selector=selector, in_view=more)[0][:, 0]
        missed = np.flatnonzero(np.isinf(distances))
        if len(missed):
            distances[missed] = _nearest_member(asked[missed], self.features, np.flatnonzero(members))
        return distances.astype(np.float64)

    def enough_in_view(self, sample: Int64, *, k: int) -> int:
        """How many points must be kept in view, so that nearly all neighbours are found and distances are nearly right.

        Args:
            sample: (S,) positions of reference points that this is tried on.
            k: Neighbours.
        """
        points, exact = as_float32(self.features[sample]), exact_own(self.features, sample, k=k)[0]
        in_view = _FEWEST_IN_VIEW
        while in_view < _MOST_IN_VIEW:
            found = self._others(points, sample, k, in_view=in_view)[0]
            if recall_of(exact, found) >= _RECALL and excess_of(exact, found).mean() <= _OVERESTIMATE:
                break
            in_view = min(in_view * 4 // 3, _MOST_IN_VIEW)
        return in_view

    def _measured(self, near: Surroundings, sparse: Int64) -> Accuracy:
        """How well the neighbours of the reference were found, on some of all and some of the sparse ones."""
        rng, k = np.random.default_rng(0), near.indices.shape[1]
        recalls, excess, every = [], [], np.arange(len(self.features))
        if len(sparse) == 0:  # equal points have no sparse ones among them
            sparse = every
        for positions in (every, sparse):
            sample = np.sort(rng.choice(positions, size=min(_SAMPLE, len(positions)), replace=False))
            exact = exact_own(self.features, sample, k=k)[0]
            recalls.append(recall_of(exact, near.distances[sample]))
            excess.append(excess_of(exact, near.distances[sample]))
        return Accuracy(
            recall=recalls[0],
            rare_recall=recalls[1],
            overestimate=float(excess[0].mean()),
            worst=float(np.concatenate(excess).max()),
            sample=min(_SAMPLE, len(sparse)),
        )

    def _look_again(self, positions: Int64, gaps: NDArray[np.float32], indices: NDArray[np.int32]) -> None:
        """Look reference points up with more points in view, in place."""
        for start in range(0, len(positions), QUERIES):
            some = positions[start : start + QUERIES]
            found = self._others(
                as_float32(self.features[some]), some, gaps.shape[1], in_view=_MORE * self.graph.in_view
            )
            gaps[some], indices[some] = found

    def _edge_of(self, radii: Float64) -> "WidestBalls":
        """The edge of the reference, which is the same whenever the radii are."""
        if self._edge is None or self._edge[0] is not radii:
            self._edge = (radii, WidestBalls(self.features, radii))
        return self._edge[1]

    def _search(
        self, points: NDArray[np.float32], k: int, *, selector: Any = None, in_view: int | None = None
    ) -> tuple[NDArray[np.float32], Int64]:
        """(M, k) distances, ascending, infinite where fewer are found, and (M, k) indices, -1 there."""
        chosen = {} if selector is None else {"sel": selector}
        parameters = self._faiss.SearchParametersHNSW(efSearch=max(k, in_view or self.graph.in_view), **chosen)
        squared, indices = self._linked.search(points, k, params=parameters)
        squared[indices < 0] = np.inf
        return np.sqrt(np.maximum(squared, 0)), indices

    def _others(
        self, points: NDArray[np.float32], positions: Int64, k: int, *, in_view: int | None = None
    ) -> tuple[NDArray[np.float32], Int64]:
        """The same among all but each point itself."""
        gaps, indices = self._search(points, k + 1, in_view=in_view)
        is_self = indices == positions[:, None]
        is_self[~is_self.any(axis=1), -1] = True  # among many copies: leave out the last
        return gaps[~is_self].reshape(-1, k), indices[~is_self].reshape(-1, k)

    def _opened(self) -> Any:
        """The graph as faiss sees it: where it lies, without a copy."""
        links = self.graph.links
        return self._faiss.read_index(self._faiss.ZeroCopyIOReader(self._faiss.swig_ptr(links), links.nbytes))

    def _flat(self) -> Any:
        """The points as faiss sees them: where they lie, without a copy."""
        flat, points = self._faiss.IndexFlatL2(self._points.shape[1]), self._points
        where = self._faiss.swig_ptr(points.reshape(-1).view(np.uint8))
        flat.codes = self._faiss.MaybeOwnedVectorUInt8.create_view(where, points.nbytes, flat.codes.owner)
        flat.ntotal = len(points)
        return flat


@contextmanager
def _one_thread(faiss: Any) -> Iterator[None]:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _nearest_member(points: NDArray[np.float32], features: Features, members: Int64) -> NDArray[np.float32]:
    """(M,) distance to the nearest of some reference points, all of which are compared."""
    found = np.full(len(points), np.inf, dtype=np.float32)
    for start in range(0, len(members), _FEW_MEMBERS):
        part = as_float32(features[members[start : start + _FEW_MEMBERS]])
        found = np.minimum(found, nearest(points, part, k=1)[0][:, 0].astype(np.float32))
    return found


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ValueError(
            f"more than {EXACT_LIMIT:,} real images are looked up by faiss, which is not installed; run "
            "pip install 'minority-augment[scale]', or set selection.search to exact, which takes long."
        ) from error
    return faiss
