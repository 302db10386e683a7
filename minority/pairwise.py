"""Exact nearest neighbours, ratios and balls between large sets of features, in bounded memory.

Distances are screened tile by tile with one matrix product, in the precision of the features, and those that can
matter are computed again in float64 from plain differences. A bound on the screening's rounding error tells where the
screening could have missed something; such rows are computed exactly throughout. So a result depends neither on
tiles and batches nor on how the features are shifted, and an exact copy has distance 0.

Shapes: M points, N reference points, D features.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Features = NDArray[np.floating]

_ROWS, _COLUMNS = 1024, 8192  # of a tile: 32 MiB in float32
_EXACT_VALUES = 2**22  # differences that are held at once, 32 MiB in float64
_SPARE = 16  # candidates beyond the k that are asked for
_PAIRS = 2**18  # pairs that are computed exactly at once, at most


def nearest(
    points: Features, reference: Features, *, k: int, leave_out_self: bool = False, device: torch.device | str = "cpu"
) -> tuple[Float64, Int64]:
    """The k nearest reference points of every point.

    Args:
        points: (M, D).
        reference: (N, D).
        k: How many, at least 1 and at most N (N - 1 where each leaves itself out).
        leave_out_self: Point i is reference point i, and not its own neighbour.
        device: Where to compute.

    Returns:
        (M, k) Euclidean distances, ascending, and (M, k) indices. Of equally near ones the first.
    """
    space = _Space(points, reference, device=device)
    kept = min(k + _SPARE, len(space.reference) - leave_out_self)
    distances, indices = np.empty((len(points), k)), np.empty((len(points), k), dtype=np.int64)
    for rows in _parts(len(points), _ROWS):
        best = _Best(largest=False, count=kept)
        for columns, squared in space.tiles(rows, leave_out_self=leave_out_self):
            best.add(squared, columns)
        candidates = best.indices.sort(dim=1).values  # by index, so that ties go to the first
        exact = space.exact(rows, candidates)
        exact, order = exact.sort(dim=1, stable=True)
        found = candidates.gather(1, order)[:, :k]
        if kept < len(space.reference) - leave_out_self:
            bound = best.values[:, -1].double() - space.slack(rows)
            for i in torch.nonzero((exact[:, k - 1] ** 2 > bound) & (exact[:, k - 1] > 0)).flatten().tolist():
                full = space.exact_row(rows.start + i, leave_out_self=leave_out_self)
                ordered, order = full.sort(stable=True)
                exact[i, :k], found[i] = ordered[:k], order[:k]
        distances[rows], indices[rows] = exact[:, :k].cpu().numpy(), found.cpu().numpy()
    return distances, indices


def largest_ratio(
    points: Features,
    reference: Features,
    radii: Float64,
    *,
    leave_out_self: bool = False,
    device: torch.device | str = "cpu",
) -> Float64:
    """The largest ratio of a reference point's radius to its distance, (M,).

    Args:
        points: (M, D).
        reference: (N, D).
        radii: (N,) >= 0.
        leave_out_self: Point i is reference point i, which does not count.
        device: Where to compute.

    Returns:
        (M,) >= 0; infinite for a copy of a reference point.
    """
    space = _Space(points, reference, device=device)
    radius = torch.as_tensor(radii, dtype=torch.float64, device=device)
    squared_radius = radius.square().to(space.dtype)
    ratios = np.empty(len(points))
    others = len(space.reference) - leave_out_self
    kept = min(_SPARE, others)
    for rows in _parts(len(points), _ROWS):
        best, slack = _Best(largest=True, count=kept), space.slack(rows).to(space.dtype)[:, None]
        for columns, squared in space.tiles(rows, leave_out_self=leave_out_self):
            # An upper bound of the ratio, and no bound at all where the distance may be 0.
            lowest = squared - slack
            best.add(torch.where(lowest > 0, squared_radius[columns] / lowest, torch.inf), columns)
        ratio = _ratio(radius[best.indices], space.exact(rows, best.indices)).amax(dim=1)
        if kept < others:
            bound = best.values[:, -1].double() * (1 + 1e-5)
            for i in torch.nonzero(~(ratio**2 >= bound) & ~ratio.isinf()).flatten().tolist():
                ratio[i] = _ratio(radius, space.exact_row(rows.start + i, leave_out_self=leave_out_self)).max()
        ratios[rows] = ratio.cpu().numpy()
    return ratios


def inside_balls(
    points: Features, centres: Features, radii: Float64, *, device: torch.device | str = "cpu"
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Which points lie in which balls (on the edge counts), tile by tile.

    Args:
        points: (M, D).
        centres: (N, D).
        radii: (N,) >= 0.
        device: Where to compute.

    Yields:
        Rows (of the points), columns (of the balls) and a bool tile (rows, columns); tiles cover everything once.
    """
    space = _Space(points, centres, device=device)
    radius = torch.as_tensor(radii, dtype=torch.float64, device=device)
    squared_radius = radius.square().to(space.dtype)
    for rows in _parts(len(points), _ROWS):
        slack = space.slack(rows).to(space.dtype)[:, None]
        for columns, squared in space.tiles(rows, leave_out_self=False):
            gap = squared - squared_radius[columns]
            inside = gap < -slack
            for unsure in torch.nonzero(gap.abs() <= slack).split(_PAIRS):
                i, j = unsure[:, 0], unsure[:, 1]
                exact = space.exact_pairs(i + rows.start, j + columns.start)
                inside[i, j] = exact <= radius[j + columns.start]
            yield rows, columns, inside


def _ratio(radius: Tensor, distance: Tensor) -> Tensor:
    return torch.where(distance > 0, radius / distance, torch.inf)


def _parts(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


@dataclass
class _Best:
    """The best values of every row so far, best first, and where they were."""

    largest: bool
    count: int
    values: Tensor = field(default_factory=lambda: torch.empty(0))
    indices: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))

    def add(self, tile: Tensor, columns: slice) -> None:
        values, indices = tile.topk(min(self.count, tile.shape[1]), dim=1, largest=self.largest)
        indices = indices + columns.start
        if self.values.numel():
            values, indices = torch.cat([self.values, values], dim=1), torch.cat([self.indices, indices], dim=1)
            values, order = values.topk(min(self.count, values.shape[1]), dim=1, largest=self.largest)
            indices = indices.gather(1, order)
        self.values, self.indices = values, indices


class _Space:
    """Two sets of points on a device, and the distances between them: screened, and exact."""

    def __init__(self, points: Features, reference: Features, *, device: torch.device | str) -> None:
        self.points, self.reference = _tensor(points, device), _tensor(reference, device)
        self.dtype = torch.promote_types(self.points.dtype, self.reference.dtype)
        self.centre = self.reference.mean(dim=0, dtype=torch.float64).to(self.dtype)
        self.point_norms = self._squared_norms(self.points)
        self.reference_norms = self._squared_norms(self.reference)
        self.farthest = self.reference_norms.max().double().sqrt()
        # Rounding of a sum of D products, and of the few operations around it.
        self.rounding = (self.reference.shape[1] + 16) * torch.finfo(self.dtype).eps

    def slack(self, rows: slice) -> Tensor:
        """(rows,) float64: how far a screened squared distance may be off."""
        return self.rounding * (self.point_norms[rows].double().sqrt() + self.farthest).square()

    def tiles(self, rows: slice, *, leave_out_self: bool) -> Iterator[tuple[slice, Tensor]]:
        """Screened squared distances; a point's own is infinite where it is left out."""
        part = self.points[rows].to(self.dtype) - self.centre
        for columns in _parts(len(self.reference), _COLUMNS):
            other = self.reference[columns].to(self.dtype) - self.centre
            squared = self.point_norms[rows, None] + self.reference_norms[None, columns]
            squared.addmm_(part, other.T, alpha=-2)
            if leave_out_self:
                first, last = max(rows.start, columns.start), min(rows.stop, columns.stop)
                own = torch.arange(first, max(first, last), device=squared.device)
                squared[own - rows.start, own - columns.start] = torch.inf
            yield columns, squared

    def exact(self, rows: slice, indices: Tensor) -> Tensor:
        """(rows, m) float64 distances to the reference points of these indices."""
        row = torch.arange(rows.start, rows.stop, device=indices.device)[:, None].expand_as(indices)
        return self.exact_pairs(row.flatten(), indices.flatten()).view(indices.shape)

    def exact_pairs(self, i: Tensor, j: Tensor) -> Tensor:
        """(P,) float64 distances of point i to reference point j."""
        size = max(1, _EXACT_VALUES // max(1, self.points.shape[1]))
        parts = [
            (self.points[a].double() - self.reference[b].double()).square_().sum(dim=1).sqrt_()
            for a, b in zip(i.split(size), j.split(size), strict=True)
        ]
        return torch.cat(parts)

    def exact_row(self, i: int, *, leave_out_self: bool) -> Tensor:
        """(N,) float64 distances of point i to all reference points."""
        j = torch.arange(len(self.reference), device=self.reference.device)
        row = self.exact_pairs(torch.full_like(j, i), j)
        if leave_out_self:
            row[i] = torch.inf
        return row

    def _squared_norms(self, features: Tensor) -> Tensor:
        parts = [
            (features[rows].to(self.dtype) - self.centre).square_().sum(dim=1) for rows in _parts(len(features), _ROWS)
        ]
        return torch.cat(parts) if parts else features.new_empty(0, dtype=self.dtype)


def _tensor(features: Features, device: torch.device | str) -> Tensor:
    array = np.ascontiguousarray(features)
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float32 if array.dtype == np.float16 else np.float64)
    if not array.flags.writeable:  # torch warns of memory that it may not write to
        array = array.copy()
    return torch.from_numpy(array).to(device)
