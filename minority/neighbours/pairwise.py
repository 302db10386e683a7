"""What is asked of two large sets of features: exact nearest neighbours, ratios and balls, in bounded memory.

Distances are screened tile by tile (minority/neighbours/tiles.py), and those that can matter are computed exactly.
So a result depends neither on tiles and batches nor on how the features are shifted, and an exact copy has distance 0.
What is asked of the same two sets is asked in one pass (`ask`).

Shapes: M points, N reference points, D features.
"""

from abc import ABC, abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minority.neighbours.tiles import Best, Features, Float64, Space

Int64 = NDArray[np.int64]

_SPARE = 16  # candidates beyond the k that are asked for


class Question(ABC):
    """Something that is asked of all pairs of points and reference points, tile by tile."""

    def begin(self, space: Space, *, leave_out_self: bool) -> None:
        """Once, before the first tile."""
        self.space, self.leave_out_self = space, leave_out_self
        self.others = len(space.reference) - leave_out_self

    def begin_rows(self, rows: slice) -> None:  # noqa: B027 - not every question has something to set up
        """Before the tiles of some points."""

    @abstractmethod
    def tile(self, rows: slice, columns: slice, squared: Tensor) -> None:
        """Screened squared distances (rows, columns); a point's own is infinite where it is left out."""

    def end_rows(self, rows: slice) -> None:  # noqa: B027
        """After all tiles of some points."""


def ask(
    points: Features,
    reference: Features,
    *questions: Question,
    leave_out_self: bool = False,
    device: torch.device | str = "cpu",
) -> None:
    """Ask several questions in one pass over all pairs, whose matrix product is most of the work.

    Args:
        points: (M, D).
        reference: (N, D).
        questions: They keep their answers.
        leave_out_self: Point i is reference point i, and no pair with itself.
        device: Where to compute.
    """
    space = Space(points, reference, device=device)
    for question in questions:
        question.begin(space, leave_out_self=leave_out_self)
    for rows in space.row_parts():
        for question in questions:
            question.begin_rows(rows)
        for columns, squared in space.tiles(rows, leave_out_self=leave_out_self):
            for question in questions:
                question.tile(rows, columns, squared)
        for question in questions:
            question.end_rows(rows)


class Nearest(Question):
    """The k nearest reference points of every point.

    Args:
        k: How many, at least 1 and at most N (N - 1 where each leaves itself out).

    Attributes:
        distances: (M, k) Euclidean, ascending.
        indices: (M, k). Of equally near ones the first.
    """

    def __init__(self, k: int) -> None:
        self.k = k

    def begin(self, space: Space, *, leave_out_self: bool) -> None:
        """Make room for the answers."""
        super().begin(space, leave_out_self=leave_out_self)
        if not 1 <= self.k <= self.others:
            raise ValueError(
                f"k must lie between 1 and the {self.others} images that can be neighbours, got {self.k}; ask for "
                "fewer neighbours, or give more images."
            )
        self.kept = min(self.k + _SPARE, self.others)
        self.distances = np.empty((len(space.points), self.k))
        self.indices = np.empty((len(space.points), self.k), dtype=np.int64)

    def begin_rows(self, rows: slice) -> None:
        """Forget the points before."""
        self.best = Best(largest=False, count=self.kept)

    def tile(self, rows: slice, columns: slice, squared: Tensor) -> None:
        """Keep those that can be among the nearest."""
        self.best.add(squared, columns)

    def end_rows(self, rows: slice) -> None:
        """Compute the candidates exactly, and whole rows where the screening could have missed one."""
        candidates = self.best.indices.sort(dim=1).values  # by index, so that ties go to the first
        exact = self.space.exact(rows, candidates)
        exact, order = exact.sort(dim=1, stable=True)
        indices = candidates.gather(1, order)[:, : self.k]
        if self.kept < self.others:
            bound = self.best.values[:, -1].double() - self.space.slack(rows)
            last = exact[:, self.k - 1]
            for i in torch.nonzero((last**2 > bound) & (last > 0)).flatten().tolist():
                full = self.space.exact_row(rows.start + i, leave_out_self=self.leave_out_self)
                ordered, order = full.sort(stable=True)
                exact[i, : self.k], indices[i] = ordered[: self.k], order[: self.k]
        self.distances[rows], self.indices[rows] = exact[:, : self.k].cpu().numpy(), indices.cpu().numpy()


class LargestRatio(Question):
    """The largest ratio of a reference point's radius to its distance.

    Args:
        radii: (N,) >= 0.

    Attributes:
        ratios: (M,) >= 0; infinite for a copy of a reference point.
    """

    def __init__(self, radii: Float64) -> None:
        self.radii = radii

    def begin(self, space: Space, *, leave_out_self: bool) -> None:
        """Make room for the answers."""
        super().begin(space, leave_out_self=leave_out_self)
        self.kept = min(_SPARE, self.others)
        self.radius = space.on_device(self.radii)
        self.squared_radius = self.radius.square().to(space.dtype)
        self.ratios = np.empty(len(space.points))

    def begin_rows(self, rows: slice) -> None:
        """Forget the points before."""
        self.best = Best(largest=True, count=self.kept)
        self.slack = self.space.slack(rows).to(self.space.dtype)[:, None]

    def tile(self, rows: slice, columns: slice, squared: Tensor) -> None:
        """Keep those that can have the largest ratio."""
        # An upper bound of the ratio, and no bound at all where the distance may be 0.
        lowest = squared - self.slack
        self.best.add(torch.where(lowest > 0, self.squared_radius[columns] / lowest, torch.inf), columns)

    def end_rows(self, rows: slice) -> None:
        """Compute the candidates exactly, and whole rows where the screening could have missed one."""
        ratio = _ratio(self.radius[self.best.indices], self.space.exact(rows, self.best.indices)).amax(dim=1)
        if self.kept < self.others:
            bound = self.best.values[:, -1].double() * (1 + 1e-5)
            for i in torch.nonzero(~(ratio**2 >= bound) & ~ratio.isinf()).flatten().tolist():
                full = self.space.exact_row(rows.start + i, leave_out_self=self.leave_out_self)
                ratio[i] = _ratio(self.radius, full).max()
        self.ratios[rows] = ratio.cpu().numpy()


class Balls(Question):
    """Which points lie in which balls around reference points; the edge belongs to a ball.

    Args:
        radii: (N,) >= 0.

    Attributes:
        counts: (M,) how many balls hold each point.
        smallest: (M,) radius of the smallest of them; infinite where there is none.
        covered: (N,) whether a ball holds any point.
    """

    def __init__(self, radii: Float64) -> None:
        self.radii = radii

    def begin(self, space: Space, *, leave_out_self: bool) -> None:
        """Make room for the answers."""
        super().begin(space, leave_out_self=leave_out_self)
        self.radius = space.on_device(self.radii)
        self.counts = np.zeros(len(space.points), dtype=np.int64)
        self.smallest = np.full(len(space.points), np.inf)
        self.covered = np.zeros(len(space.reference), dtype=bool)

    def tile(self, rows: slice, columns: slice, squared: Tensor) -> None:
        """Count the balls of a tile that hold each row, and keep the radius of the smallest."""
        radius = self.radius[columns]
        inside = self.space.within(rows, columns, squared, radius)
        self.counts[rows] += inside.sum(dim=1).cpu().numpy()
        smallest = torch.where(inside, radius, torch.inf).amin(dim=1)
        self.smallest[rows] = np.minimum(self.smallest[rows], smallest.cpu().numpy())
        self.covered[columns] |= inside.any(dim=0).cpu().numpy()


class Reached(Question):
    """Which reference points lie in a ball around any point; the edge belongs to a ball.

    Args:
        radii: (M,) >= 0, of the points.

    Attributes:
        reached: (N,) bool.
    """

    def __init__(self, radii: Float64) -> None:
        self.radii = radii

    def begin(self, space: Space, *, leave_out_self: bool) -> None:
        """Make room for the answers."""
        super().begin(space, leave_out_self=leave_out_self)
        self.radius = space.on_device(self.radii)
        self.reached = np.zeros(len(space.reference), dtype=bool)

    def tile(self, rows: slice, columns: slice, squared: Tensor) -> None:
        """Note who is reached."""
        inside = self.space.within(rows, columns, squared, self.radius[rows, None])
        self.reached[columns] |= inside.any(dim=0).cpu().numpy()


def in_balls(points: Features, centres: Features, radii: Float64, *, device: torch.device | str = "cpu") -> Balls:
    """Which points lie in which balls: `Balls` alone."""
    question = Balls(radii)
    ask(points, centres, question, device=device)
    return question


def nearest(
    points: Features, reference: Features, *, k: int, leave_out_self: bool = False, device: torch.device | str = "cpu"
) -> tuple[Float64, Int64]:
    """The k nearest reference points of every point: `Nearest` alone.

    Args:
        points: (M, D) of any real dtype.
        reference: (N, D), N >= k, or N > k where a point is left out of its own neighbours.
        k: Neighbours, at least 1.
        leave_out_self: Whether `points` are the reference, each of which is not its own neighbour.
        device: Where distances are computed.

    Returns:
        (M, k) Euclidean distances, ascending, and (M, k) indices. Of equally near ones the first.
    """
    question = Nearest(k)
    ask(points, reference, question, leave_out_self=leave_out_self, device=device)
    return question.distances, question.indices


def _ratio(radius: Tensor, distance: Tensor) -> Tensor:
    return torch.where(distance > 0, radius / distance, torch.inf)


__all__ = [
    "Balls",
    "Features",
    "Float64",
    "Int64",
    "LargestRatio",
    "Nearest",
    "Question",
    "Reached",
    "ask",
    "in_balls",
    "nearest",
]
