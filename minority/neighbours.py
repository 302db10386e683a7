"""Nearest neighbours in feature space: how rare, how real-looking and how new an image is.

A `RealReference` is fitted on features of the real training split; everything else is judged against it.

Shapes: N reference images, M judged images, D features.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

Float64 = NDArray[np.float64]


class Neighbourhood(NamedTuple):
    """How images lie among the reference images.

    Attributes:
        knn_distance: (M,) mean distance to the k nearest reference images (AvgkNN); large = rare.
        nearest_distance: (M,) distance to the nearest one; near 0 = a copy.
        nearest: (M,) its index.
        realism: (M,) largest ratio of a reference image's k-NN radius to its distance; >= 1 means inside the k-NN
            manifold of the reference (Kynkaanniemi et al. 2019), the larger the deeper.
    """

    knn_distance: Float64
    nearest_distance: Float64
    nearest: NDArray[np.int64]
    realism: Float64


@dataclass(frozen=True, eq=False)
class RealReference:
    """The real training split in feature space.

    Attributes:
        features: (N, D) features of the training images.
        k: Neighbours that are counted; clipped to N - 1.
        own: The neighbourhood of the training images themselves, each left out of its own neighbours.
    """

    features: Float64
    k: int
    own: Neighbourhood
    radii: Float64
    _index: NearestNeighbors

    @classmethod
    def fit(cls, features: NDArray[np.floating], *, k: int = 5) -> "RealReference":
        """Measure the reference once.

        Args:
            features: (N, D), N >= 2, finite.
            k: Neighbours to count, >= 1.

        Raises:
            ValueError: For fewer than two images, k < 1 or features that are not finite.
        """
        real: Float64 = np.asarray(features, dtype=np.float64)
        if real.ndim != 2 or len(real) < 2:
            raise ValueError(f"the real reference needs (N, D) features of at least 2 images, got {real.shape}.")
        if k < 1:
            raise ValueError(f"k must be at least 1 neighbour, got {k}.")
        if not np.isfinite(real).all():
            raise ValueError("the real features are not all finite; check the extractor and the images.")
        k = min(k, len(real) - 1)
        index = NearestNeighbors(n_neighbors=k).fit(real)
        distances, neighbours = index.kneighbors()  # without arguments: each image is left out of its own neighbours
        radii = distances[:, -1]
        own = Neighbourhood(
            knn_distance=distances.mean(axis=1),
            nearest_distance=distances[:, 0],
            nearest=neighbours[:, 0],
            realism=_realism(real, real, radii, leave_out_self=True),
        )
        return cls(features=real, k=k, own=own, radii=radii, _index=index)

    def judge(self, features: NDArray[np.floating]) -> Neighbourhood:
        """Place images among the reference.

        Args:
            features: (M, D) of images that are not in the reference.
        """
        judged: Float64 = np.asarray(features, dtype=np.float64)
        distances, neighbours = self._index.kneighbors(judged)
        return Neighbourhood(
            knn_distance=distances.mean(axis=1),
            nearest_distance=distances[:, 0],
            nearest=neighbours[:, 0],
            realism=_realism(judged, self.features, self.radii, leave_out_self=False),
        )

    def distances(self, features: NDArray[np.floating]) -> Float64:
        """Distance of every judged image to every reference image, (M, N)."""
        return np.sqrt(_squared_distances(np.asarray(features, dtype=np.float64), self.features))


def _realism(features: Float64, reference: Float64, radii: Float64, *, leave_out_self: bool) -> Float64:
    realism = np.empty(len(features))
    chunk = max(1, 2**24 // max(1, len(reference)))
    for start in range(0, len(features), chunk):
        part = features[start : start + chunk]
        distance = np.sqrt(_squared_distances(part, reference))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = radii[None, :] / distance
        ratio = np.where(distance > 0, ratio, np.inf)
        if leave_out_self:
            ratio[np.arange(len(part)), np.arange(start, start + len(part))] = 0.0
        realism[start : start + chunk] = ratio.max(axis=1)
    return realism


def _squared_distances(a: Float64, b: Float64) -> Float64:
    squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :] - 2 * a @ b.T
    return np.maximum(squared, 0.0)
