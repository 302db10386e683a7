"""Distances between large sets of features, screened tile by tile and exact where they can matter.

Screening is one matrix product a tile, in the precision of the features; exact distances are computed in float64 from
plain differences. A bound on the screening's rounding error tells which pairs, and which whole rows, need them.

Shapes: M points, N reference points, D features.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Float64 = NDArray[np.float64]
Features = NDArray[np.floating]

_ROWS, _COLUMNS = 1024, 8192  # of a tile: 32 MiB in float32
_EXACT_VALUES = 2**22  # differences that are held at once, 32 MiB in float64
_PAIRS = 2**18  # pairs that are computed exactly at once, at most


def _parts(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


@dataclass
class Best:
    """The best values of every row so far, best first, and where they were."""

    largest: bool
    count: int
    values: Tensor = field(default_factory=lambda: torch.empty(0))
    indices: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))

    def add(self, tile: Tensor, columns: slice) -> None:
        """Take the best of a (rows, columns) tile in."""
        values, indices = tile.topk(min(self.count, tile.shape[1]), dim=1, largest=self.largest)
        indices = indices + columns.start
        if self.values.numel():
            values, indices = torch.cat([self.values, values], dim=1), torch.cat([self.indices, indices], dim=1)
            values, order = values.topk(min(self.count, values.shape[1]), dim=1, largest=self.largest)
            indices = indices.gather(1, order)
        self.values, self.indices = values, indices


class Space:
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

    def row_parts(self) -> Iterator[slice]:
        """The points, in the parts that tiles are made of."""
        return _parts(len(self.points), _ROWS)

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
                itself = torch.arange(first, max(first, last), device=squared.device)
                squared[itself - rows.start, itself - columns.start] = torch.inf
            yield columns, squared

    def within(self, rows: slice, columns: slice, squared: Tensor, radius: Tensor) -> Tensor:
        """(rows, columns) bool: whether a pair is no farther apart than its radius.

        Args:
            rows: Of the tile.
            columns: Of the tile.
            squared: (rows, columns) the tile.
            radius: float64, broadcast to the tile.
        """
        gap = squared - radius.square().to(self.dtype)
        slack = self.slack(rows).to(self.dtype)[:, None]
        inside = gap < -slack
        for unsure in torch.nonzero(gap.abs() <= slack).split(_PAIRS):
            i, j = unsure[:, 0], unsure[:, 1]
            inside[i, j] = self.exact_pairs(i + rows.start, j + columns.start) <= radius.expand_as(squared)[i, j]
        return inside

    def on_device(self, values: Float64) -> Tensor:
        """The same in float64 where the points are."""
        return torch.as_tensor(values, dtype=torch.float64, device=self.points.device)

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
