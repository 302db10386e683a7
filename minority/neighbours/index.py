"""Where nearest neighbours are looked up: the contract, and the exact one.

Shapes: M points, N reference points, D features.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from minority.neighbours.pairwise import Balls, Features, Float64, Int64, LargestRatio, Nearest, ask, nearest

Bool = NDArray[np.bool_]


class Surroundings(NamedTuple):
    """What lies around points.

    Attributes:
        distances: (M, k) Euclidean distances to the nearest reference points, ascending.
        indices: (M, k) which those are.
        ratios: (M,) largest ratio of a reference point's radius to its distance; infinite for a copy.
        smallest: (M,) smallest radius of a reference point whose ball holds the point; infinite where there is none.
    """

    distances: Float64
    indices: Int64
    ratios: Float64
    smallest: Float64


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """How well an index finds the nearest neighbours, measured on reference points against the exact answer.

    Attributes:
        recall: Share of the k nearest that are found, in [0, 1].
        rare_recall: The same for the tenth of the reference that is farthest from its neighbours.
        overestimate: Mean of (found mean distance to the k nearest) / (exact one) - 1, >= 0. Thresholds of rarity and
            the candidates' own distances are both too large by about that.
        worst: The largest of those, >= 0, among both kinds of points.
        sample: Points of each kind that it was measured on; 0 where the index is exact.
    """

    recall: float = 1.0
    rare_recall: float = 1.0
    overestimate: float = 0.0
    worst: float = 0.0
    sample: int = 0


class Index(Protocol):
    """Looks up nearest neighbours among fixed reference points."""

    @property
    def features(self) -> Features:
        """(N, D) the reference points."""
        ...

    @property
    def accuracy(self) -> Accuracy:
        """How well the neighbours are found."""
        ...

    def of_training(self, k: int) -> tuple[Surroundings, Float64]:
        """What lies around the reference points themselves, each left out of its own neighbours, and (N,) their radii.

        Args:
            k: Neighbours, at least 1 and below N. A point's radius is its distance to the k-th.
        """
        ...

    def around(self, points: Features, radii: Float64, *, k: int) -> Surroundings:
        """What lies around points that are not in the reference.

        Args:
            points: (M, D).
            radii: (N,) of the reference points.
            k: Neighbours, at least 1 and at most N.
        """
        ...

    def nearest(self, points: Features, *, leave_out_self: bool = False) -> tuple[Float64, Int64]:
        """(M,) distance to the nearest reference point, and (M,) which.

        Args:
            points: (M, D).
            leave_out_self: Point i is reference point i, which is not its own neighbour.
        """
        ...

    def nearest_among(self, points: Features, members: Bool) -> Float64:
        """(M,) distance to the nearest of some reference points; infinite where there are none.

        Args:
            points: (M, D).
            members: (N,) which count.
        """
        ...


@dataclass(frozen=True, eq=False)
class ExactIndex:
    """Compares every point with every reference point.

    The exact search is our own and neither torch.cdist nor faiss' flat index, for four reasons. Results must not depend
    on the batch: a candidate is evaluated alike in whatever unit it lies, down to the last bit, while the matrix
    products of both round by the shape of the batch. A copy must have the distance 0, which the expansion
    |x|^2 - 2xy + |y|^2 of both does not give in float32. Ties go to the first point, so that the nearest real image has
    one name everywhere. And a real set is asked for three things at once (neighbours, largest ratio, smallest ball), of
    which faiss knows only the first, and for which torch.cdist would hold the whole (M, N) matrix. So tiles are
    screened by one matrix product, and what the screening cannot rule out is computed exactly in float64.

    Attributes:
        features: (N, D) the reference points.
        device: Where distances are computed.
    """

    features: Features
    device: torch.device | str = "cpu"

    @property
    def accuracy(self) -> Accuracy:
        """Exact."""
        return Accuracy()

    def of_training(self, k: int) -> tuple[Surroundings, Float64]:
        """See `Index`."""
        real = self.features
        distances, neighbours = nearest(real, real, k=k, leave_out_self=True, device=self.device)
        radii = distances[:, -1]
        ratio, balls = LargestRatio(radii), Balls(radii)
        ask(real, real, ratio, balls, leave_out_self=True, device=self.device)
        return Surroundings(distances, neighbours, ratio.ratios, balls.smallest), radii

    def around(self, points: Features, radii: Float64, *, k: int) -> Surroundings:
        """See `Index`."""
        near, ratio, balls = Nearest(k), LargestRatio(radii), Balls(radii)
        ask(points, self.features, near, ratio, balls, device=self.device)
        return Surroundings(near.distances, near.indices, ratio.ratios, balls.smallest)

    def nearest(self, points: Features, *, leave_out_self: bool = False) -> tuple[Float64, Int64]:
        """See `Index`."""
        distances, indices = nearest(points, self.features, k=1, leave_out_self=leave_out_self, device=self.device)
        return distances[:, 0], indices[:, 0]

    def nearest_among(self, points: Features, members: Bool) -> Float64:
        """See `Index`."""
        if not members.any():
            return np.full(len(points), np.inf)
        return nearest(points, self.features[members], k=1, device=self.device)[0][:, 0]
