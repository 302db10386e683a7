"""Metrics of a set of images against a real set, in feature space.

Every function takes features, so that the choice of the extractor is the caller's: pixels for tiny aligned images,
a network's features for others.

Shapes: N real and M generated images, D features.
"""

import warnings
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors

Float64 = NDArray[np.float64]
Features = NDArray[np.floating]


@dataclass(frozen=True)
class SetMetrics:
    """How a generated set lies against a real one.

    Attributes:
        avg_knn: Mean distance to the k nearest real images; large = rare, or unreal.
        lof: Mean local outlier factor against the real images; 1 = as dense as its neighbours, larger = rarer.
        rarity_score: Mean rarity score of the images inside the real manifold; NaN where there are none.
        inside: Share of the images inside the real manifold, which is what the rarity score speaks of.
        precision: Share of generated images inside the real manifold, in [0, 1].
        recall: Share of real images inside the generated manifold, in [0, 1].
        density: Mean number of real neighbourhoods around a generated image, over k; 1 for the real distribution.
        coverage: Share of real images whose neighbourhood holds a generated one, in [0, 1].
        fid: Frechet distance of the features to those of the whole real set, >= 0; 0 = same mean and covariance.
        fid_rare: The same to the rarest tenth of the real set.
    """

    avg_knn: float
    lof: float
    rarity_score: float
    inside: float
    precision: float
    recall: float
    density: float
    coverage: float
    fid: float
    fid_rare: float

    def as_dict(self) -> dict[str, float]:
        """By name."""
        return asdict(self)


def set_metrics(real: Features, generated: Features, *, k: int = 5) -> SetMetrics:
    """All metrics at once.

    Args:
        real: (N, D).
        generated: (M, D).
        k: Neighbours of every neighbour metric.

    Raises:
        ValueError: Where a set is smaller than k + 1, or their features differ in number.
    """
    real, generated = _checked(real, generated, k=k)
    inside, rarity = rarity_score(real, generated, k=k)
    precision, recall = precision_recall(real, generated, k=k)
    density, coverage = density_coverage(real, generated, k=k)
    return SetMetrics(
        avg_knn=float(avg_knn(real, generated, k=k).mean()),
        lof=float(local_outlier_factor(real, generated, k=k).mean()),
        rarity_score=float(rarity[inside].mean()) if inside.any() else float("nan"),
        inside=float(inside.mean()),
        precision=precision,
        recall=recall,
        density=density,
        coverage=coverage,
        fid=frechet_distance(real, generated),
        fid_rare=frechet_distance(real[rarest(real, share=0.1, k=k)], generated),
    )


def avg_knn(real: Features, generated: Features, *, k: int = 5) -> Float64:
    """Mean distance of each generated image to its k nearest real ones, (M,)."""
    distances, _ = NearestNeighbors(n_neighbors=k).fit(real).kneighbors(generated)
    return np.asarray(distances.mean(axis=1))


def local_outlier_factor(real: Features, generated: Features, *, k: int = 5) -> Float64:
    """Local outlier factor of each generated image among the real ones (Breunig et al. 2000), (M,), >= 0."""
    return np.asarray(-LocalOutlierFactor(n_neighbors=k, novelty=True).fit(real).score_samples(generated))


def rarity_score(real: Features, generated: Features, *, k: int = 5) -> tuple[NDArray[np.bool_], Float64]:
    """Rarity score (Han et al. 2023): the smallest real neighbourhood that an image lies in.

    Args:
        real: (N, D).
        generated: (M, D).
        k: The neighbourhood of a real image reaches to its k-th neighbour.

    Returns:
        (M,) whether an image lies in any neighbourhood, and (M,) the radius of the smallest; inf outside.
    """
    distance, radii = _distances(generated, real), _radii(real, k=k)
    scores = np.where(distance <= radii[None, :], radii[None, :], np.inf).min(axis=1)
    return np.isfinite(scores), scores


def precision_recall(real: Features, generated: Features, *, k: int = 5) -> tuple[float, float]:
    """Improved precision and recall (Kynkaanniemi et al. 2019), each in [0, 1]."""
    distance = _distances(generated, real)
    precision = (distance <= _radii(real, k=k)[None, :]).any(axis=1).mean()
    recall = (distance <= _radii(generated, k=k)[:, None]).any(axis=0).mean()
    return float(precision), float(recall)


def density_coverage(real: Features, generated: Features, *, k: int = 5) -> tuple[float, float]:
    """Density (>= 0, may exceed 1) and coverage (in [0, 1]) (Naeem et al. 2020)."""
    inside = _distances(generated, real) <= _radii(real, k=k)[None, :]
    return float(inside.sum(axis=1).mean() / k), float(inside.any(axis=0).mean())


def frechet_distance(real: Features, generated: Features) -> float:
    """Frechet distance between normals fitted to two feature sets (Heusel et al. 2017), by clean-fid's own routine.

    Small sets of many features make it large by themselves; compare equal sizes only.
    """
    from cleanfid.fid import frechet_distance as distance_of_normals  # slow to import

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # clean-fid calls scipy in an old way
        value = distance_of_normals(*_moments(real), *_moments(generated))
    return max(0.0, float(np.real(value)))


def rarest(real: Features, *, share: float = 0.1, k: int = 5) -> NDArray[np.int64]:
    """Indices of the real images with the largest mean distance to their k nearest others.

    Args:
        real: (N, D).
        share: How many of them, in (0, 1]; at least two images.
        k: Neighbours.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1], got {share}.")
    distances, _ = NearestNeighbors(n_neighbors=k).fit(real).kneighbors()
    order = np.argsort(-distances.mean(axis=1), kind="stable")
    return order[: max(2, round(share * len(order)))].astype(np.int64)


def _moments(features: Features) -> tuple[Float64, Float64]:
    wide = np.asarray(features, dtype=np.float64)
    return wide.mean(axis=0), np.atleast_2d(np.cov(wide, rowvar=False))


def _radii(features: Features, *, k: int) -> Float64:
    # Without arguments every image is left out of its own neighbours.
    distances, _ = NearestNeighbors(n_neighbors=k).fit(features).kneighbors()
    return np.asarray(distances[:, -1], dtype=np.float64)


def _distances(a: Features, b: Features) -> Float64:
    squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :] - 2 * a @ b.T
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)))


def _checked(real: Features, generated: Features, *, k: int) -> tuple[Float64, Float64]:
    if real.ndim != 2 or generated.ndim != 2 or real.shape[1] != generated.shape[1]:
        raise ValueError(f"both sets need (N, D) features of one D, got {real.shape} and {generated.shape}.")
    if min(len(real), len(generated)) <= k or k < 1:
        raise ValueError(
            f"each set needs more than k = {k} images and k at least 1, got {len(real)} and {len(generated)}."
        )
    return np.asarray(real, dtype=np.float64), np.asarray(generated, dtype=np.float64)
