"""Nearest neighbours in feature space: how rare, how real-looking and how new an image is.

A `RealReference` is fitted on features of the real training split; everything else is evaluated against it.

Shapes: N reference images, M evaluated images, D features.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from minority.neighbours.pairwise import Balls, Features, Float64, Int64, LargestRatio, Nearest, ask, nearest


class Neighbourhood(NamedTuple):
    """How images lie among the reference images.

    Attributes:
        knn_distance: (M,) mean distance to the k nearest reference images (AvgkNN); large = rare.
        nearest_distance: (M,) distance to the nearest one; near 0 = a copy.
        nearest: (M,) its index.
        realism: (M,) largest ratio of a reference image's k-NN radius to its distance; >= 1 means inside the k-NN
            manifold of the reference (Kynkaanniemi et al. 2019), the larger the deeper.
        lof: (M,) local outlier factor (Breunig et al. 2000); 1 = as dense as its neighbours, larger = sparser.
        rarity: (M,) rarity score (Han et al. 2023): the smallest k-NN radius of a reference image whose ball holds the
            image; infinite outside the manifold.
        copy_ratio: (M,) nearest_distance over knn_distance, in [0, 1]: far below 1 = a near-copy of one image, however
            rare that image is. 1 where both are 0 for want of any other distance.
    """

    knn_distance: Float64
    nearest_distance: Float64
    nearest: Int64
    realism: Float64
    lof: Float64
    rarity: Float64
    copy_ratio: Float64


@dataclass(frozen=True, eq=False)
class RealReference:
    """The real training split in feature space.

    Attributes:
        features: (N, D) features of the training images, float32 or float64 as they were given.
        k: Neighbours that are counted; clipped to N - 1.
        of_training: The neighbourhood of the training images themselves, each left out of its own neighbours.
        radii: (N,) distance of each to its k-th nearest other one.
        reachability: (N,) local reachability density of each (Breunig et al. 2000).
        device: Where distances are computed.
    """

    features: Features
    k: int
    of_training: Neighbourhood
    radii: Float64
    reachability: Float64
    device: torch.device | str = "cpu"

    @classmethod
    def fit(cls, features: NDArray[np.floating], *, k: int = 5, device: torch.device | str = "cpu") -> "RealReference":
        """Measure the reference once.

        Args:
            features: (N, D), N >= 2, finite.
            k: Neighbours to count, >= 1.
            device: Where to compute distances, now and later.

        Raises:
            ValueError: For fewer than two images, k < 1 or features that are not finite.
        """
        real = np.asarray(features)
        if real.dtype not in (np.float32, np.float64):
            real = real.astype(np.float64)
        if real.ndim != 2 or len(real) < 2:
            raise ValueError(f"the real reference needs (N, D) features of at least 2 images, got {real.shape}.")
        if k < 1:
            raise ValueError(f"k must be at least 1 neighbour, got {k}.")
        if not np.isfinite(real).all():
            raise ValueError("the real features are not all finite; check the extractor and the images.")
        k = min(k, len(real) - 1)
        distances, neighbours = nearest(real, real, k=k, leave_out_self=True, device=device)
        radii = distances[:, -1]
        reachability = reachability_density(distances, radii[neighbours])
        ratio, balls = LargestRatio(radii), Balls(radii)
        ask(real, real, ratio, balls, leave_out_self=True, device=device)
        of_training = Neighbourhood(
            knn_distance=distances.mean(axis=1),
            nearest_distance=distances[:, 0],
            nearest=neighbours[:, 0],
            realism=ratio.ratios,
            lof=reachability[neighbours].mean(axis=1) / reachability,
            rarity=balls.smallest,
            copy_ratio=_copy_ratio(distances),
        )
        return cls(features=real, k=k, of_training=of_training, radii=radii, reachability=reachability, device=device)

    def locate(self, features: NDArray[np.floating]) -> Neighbourhood:
        """Place images among the reference.

        Args:
            features: (M, D) of images that are not in the reference.

        Raises:
            ValueError: Where D is not the reference's, or features are not finite.
        """
        evaluated = np.asarray(features)
        if evaluated.ndim != 2 or evaluated.shape[1] != self.features.shape[1]:
            raise ValueError(
                f"features must be (M, {self.features.shape[1]}), as the reference's are, got {evaluated.shape}; use "
                "the same extractor for both."
            )
        if not np.isfinite(evaluated).all():
            raise ValueError("the features to evaluate are not all finite; check the extractor and the images.")
        near, ratio, balls = Nearest(self.k), LargestRatio(self.radii), Balls(self.radii)
        ask(evaluated, self.features, near, ratio, balls, device=self.device)
        distances, neighbours = near.distances, near.indices
        reachability = reachability_density(distances, self.radii[neighbours])
        return Neighbourhood(
            knn_distance=distances.mean(axis=1),
            nearest_distance=distances[:, 0],
            nearest=neighbours[:, 0],
            realism=ratio.ratios,
            lof=self.reachability[neighbours].mean(axis=1) / reachability,
            rarity=balls.smallest,
            copy_ratio=_copy_ratio(distances),
        )


def outlier_factor(among_real: Float64, neighbours: Int64, distances: Float64, nearest_real: Int64) -> Float64:
    """Local outlier factor (Breunig et al. 2000), (M,); 1 = as dense as its neighbours, larger = sparser.

    Args:
        among_real: (N, k) distances of the reference images to their nearest others.
        neighbours: (N, k) the indices of those.
        distances: (M, k) distances of the images to their nearest reference images.
        nearest_real: (M, k) the indices of those.
    """
    radii = among_real[:, -1]
    density = reachability_density(among_real, radii[neighbours])
    return np.asarray(density[nearest_real].mean(axis=1) / reachability_density(distances, radii[nearest_real]))


def reachability_density(distances: Float64, neighbour_radii: Float64) -> Float64:
    """Local reachability density (Breunig et al. 2000), with scikit-learn's guard against division by 0, (M,).

    Args:
        distances: (M, k) to the nearest reference images.
        neighbour_radii: (M, k) distance of each of those to its own k-th neighbour.
    """
    return np.asarray(1.0 / (np.maximum(distances, neighbour_radii).mean(axis=1) + 1e-10))


def _copy_ratio(distances: Float64) -> Float64:
    mean = distances.mean(axis=1)
    return np.where(mean > 0, distances[:, 0] / np.where(mean > 0, mean, 1.0), 1.0)
