"""Metrics of a set of images against a real set, in feature space.

Every function takes features, so that the choice of the extractor is the caller's: pixels for tiny aligned images,
a network's features for others.

Shapes: N real and M generated images, D features.
"""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from minority.neighbours.pairwise import Balls, Nearest, Reached, ask, in_balls, nearest
from minority.neighbours.reference import outlier_factor

Float64 = NDArray[np.float64]
Features = NDArray[np.floating]

_ROWS = 4096  # images a product of matrices; changes memory, not results


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
    pairs = compare_pairs(real, generated, k=k)
    inside = pairs.balls.counts > 0
    return SetMetrics(
        avg_knn=float(pairs.to_real.distances.mean()),
        lof=float(pairs.lof.mean()),
        rarity_score=float(pairs.balls.smallest[inside].mean()) if inside.any() else float("nan"),
        inside=float(inside.mean()),
        precision=float(inside.mean()),
        recall=float(pairs.recalled.mean()),
        density=float(pairs.balls.counts.mean() / k),
        coverage=float(pairs.balls.covered.mean()),
        fid=frechet_distance(real, generated),
        fid_rare=frechet_distance(real[_largest_mean(pairs.among_real.distances, share=0.1)], generated),
    )


@dataclass(frozen=True, eq=False)
class PairComparison:
    """What the distances within and between two sets tell.

    Attributes:
        among_real: The real images' k nearest others.
        to_real: The generated images' k nearest real ones.
        balls: Which generated images lie in which real images' k-NN balls.
        recalled: (N,) whether a real image lies in a generated image's k-NN ball.
    """

    among_real: Nearest
    to_real: Nearest
    balls: Balls
    recalled: NDArray[np.bool_]

    @property
    def lof(self) -> Float64:
        """(M,) local outlier factor of the generated images among the real ones."""
        return outlier_factor(
            self.among_real.distances, self.among_real.indices, self.to_real.distances, self.to_real.indices
        )


def compare_pairs(real: Features, generated: Features, *, k: int) -> PairComparison:
    """Everything that neighbours tell about two sets: a pass over the pairs of each set, and one over those between.

    Args:
        real: (N, D), N > k.
        generated: (M, D), M > k.
        k: Neighbours that are counted, at least 1.
    """
    among_real, other, to_real = Nearest(k), Nearest(k), Nearest(k)
    ask(real, real, among_real, leave_out_self=True)
    ask(generated, generated, other, leave_out_self=True)
    balls, reached = Balls(among_real.distances[:, -1]), Reached(other.distances[:, -1])
    ask(generated, real, to_real, balls, reached)
    return PairComparison(among_real=among_real, to_real=to_real, balls=balls, recalled=reached.reached)


def avg_knn(real: Features, generated: Features, *, k: int = 5) -> Float64:
    """Mean distance of each generated image to its k nearest real ones, (M,), >= 0.

    Args:
        real: (N, D) features, N > k.
        generated: (M, D) features from the same extractor.
        k: Neighbours that are counted, at least 1.

    Example:
        >>> avg_knn(np.array([[0.0], [1.0], [2.0]]), np.array([[5.0]]), k=2).tolist()
        [3.5]
    """
    distances, _ = nearest(generated, real, k=k)
    return np.asarray(distances.mean(axis=1))


def local_outlier_factor(real: Features, generated: Features, *, k: int = 5) -> Float64:
    """Local outlier factor of each generated image among the real ones (Breunig et al. 2000), (M,), >= 0.

    Args:
        real: (N, D) features, N > k.
        generated: (M, D) features from the same extractor.
        k: Neighbours that are counted, at least 1.
    """
    distances_among_real, neighbours = nearest(real, real, k=k, leave_out_self=True)
    return outlier_factor(distances_among_real, neighbours, *nearest(generated, real, k=k))


def rarity_score(real: Features, generated: Features, *, k: int = 5) -> tuple[NDArray[np.bool_], Float64]:
    """Rarity score (Han et al. 2023): the smallest real neighbourhood that an image lies in.

    Args:
        real: (N, D).
        generated: (M, D).
        k: The neighbourhood of a real image reaches to its k-th neighbour.

    Returns:
        (M,) whether an image lies in any neighbourhood, and (M,) the radius of the smallest; inf outside.
    """
    balls = in_balls(generated, real, _radii(real, k=k))
    return balls.counts > 0, balls.smallest


def precision_recall(real: Features, generated: Features, *, k: int = 5) -> tuple[float, float]:
    """Improved precision and recall (Kynkaanniemi et al. 2019), each in [0, 1].

    Args:
        real: (N, D) features, N > k.
        generated: (M, D) features from the same extractor, M > k.
        k: Neighbours that are counted, at least 1.

    Example:
        >>> real = np.array([[0.0], [1.0], [2.0], [3.0]])
        >>> precision_recall(real, real + 10.0, k=1)
        (0.0, 0.0)
        >>> precision_recall(real, real, k=1)
        (1.0, 1.0)
    """
    precision = (in_balls(generated, real, _radii(real, k=k)).counts > 0).mean()
    recall = (in_balls(real, generated, _radii(generated, k=k)).counts > 0).mean()
    return float(precision), float(recall)


def density_coverage(real: Features, generated: Features, *, k: int = 5) -> tuple[float, float]:
    """Density (>= 0, may exceed 1) and coverage (in [0, 1]) (Naeem et al. 2020).

    Args:
        real: (N, D) features, N > k.
        generated: (M, D) features from the same extractor.
        k: Neighbours that are counted, at least 1.
    """
    balls = in_balls(generated, real, _radii(real, k=k))
    return float(balls.counts.mean() / k), float(balls.covered.mean())


def frechet_distance(real: Features, generated: Features) -> float:
    """Frechet distance between normals fitted to two feature sets (Heusel et al. 2017), >= 0.

    The same number as clean-fid's where both covariances are regular, and exact where they are not, as with pixels that
    never change. Small sets of many features make it large by themselves; compare equal sizes only.

    Args:
        real: (N, D) features, N >= 2.
        generated: (M, D) features from the same extractor, M >= 2.

    Example:
        >>> real = np.random.default_rng(0).normal(size=(1000, 2))
        >>> round(frechet_distance(real, real + [3.0, 4.0]), 6)
        25.0
    """
    _, mean, moments, between = _root_between(real, generated)
    # The eigenvalues of C1 C2 are those of the symmetric C1^(1/2) C2 C1^(1/2).
    return _frechet(mean, moments, np.asarray(np.linalg.eigvalsh(between), dtype=np.float64))


def frechet_distance_and_error(real: Features, generated: Features) -> tuple[float, float]:
    """The Frechet distance, and its standard error for want of generated images.

    The error is that of the infinitesimal jackknife (Jaeckel 1972): the distance's derivative after the weight of every
    image, F'(x) = 2 (m2 - m1) (x - m2) + |x - m2|^2 - (x - m2)^T A (x - m2) with the optimal transport map
    A = C1^(1/2) (C1^(1/2) C2 C1^(1/2))^(-1/2) C1^(1/2). It takes little more than the distance, where a bootstrap takes
    many of them and, where images are few, exaggerates more.

    Args:
        real: (N, D).
        generated: (M, D), M >= 2.
    """
    root, mean, moments, between = _root_between(real, generated)
    values, vectors = np.linalg.eigh(between)
    inside = values > 1e-10 * max(values[-1], 0.0)  # others are directions in which the generated images do not vary
    quarter = np.where(inside, np.where(inside, values, 1.0) ** -0.25, 0.0)
    transport = (vectors * quarter).T @ root  # A = its transpose times itself
    away = []
    for start in range(0, len(generated), _ROWS):
        centred = generated[start : start + _ROWS].astype(np.float64) - mean[1]
        straight = 2 * centred @ (mean[1] - mean[0]) + np.square(centred).sum(axis=1)
        away.append(straight - np.square(centred @ transport.T).sum(axis=1))
    error = np.concatenate(away).std(ddof=1) / len(generated) ** 0.5
    return _frechet(mean, moments, values), float(error)


def _root_between(real: Features, generated: Features) -> tuple[Float64, list[Float64], list[Float64], Float64]:
    """C1^(1/2), both means, both covariances, and C1^(1/2) C2 C1^(1/2)."""
    (mean, covariance), (other_mean, other_covariance) = _moments(real), _moments(generated)
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    return root, [mean, other_mean], [covariance, other_covariance], root @ other_covariance @ root


def _frechet(mean: list[Float64], covariance: list[Float64], between: Float64) -> float:
    traces = np.trace(covariance[0]) + np.trace(covariance[1])
    cross = np.sqrt(np.maximum(between, 0.0)).sum()
    return float(max(0.0, np.square(mean[0] - mean[1]).sum() + traces - 2.0 * cross))


def rarest(real: Features, *, share: float = 0.1, k: int = 5) -> NDArray[np.int64]:
    """Indices of the real images with the largest mean distance to their k nearest others.

    Args:
        real: (N, D).
        share: How many of them, in (0, 1]; at least two images.
        k: Neighbours that are counted, at least 1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1], got {share}.")
    return _largest_mean(nearest(real, real, k=k, leave_out_self=True)[0], share=share)


def _largest_mean(distances: Float64, *, share: float) -> NDArray[np.int64]:
    order = np.argsort(-distances.mean(axis=1), kind="stable")
    return order[: max(2, round(share * len(order)))].astype(np.int64)


def _moments(features: Features) -> tuple[Float64, Float64]:
    wide = np.asarray(features, dtype=np.float64)
    return wide.mean(axis=0), np.atleast_2d(np.cov(wide, rowvar=False))


def _radii(features: Features, *, k: int) -> Float64:
    distances, _ = nearest(features, features, k=k, leave_out_self=True)
    return distances[:, -1]


def _checked(real: Features, generated: Features, *, k: int) -> tuple[Features, Features]:
    if real.ndim != 2 or generated.ndim != 2 or real.shape[1] != generated.shape[1]:
        raise ValueError(f"both sets need (N, D) features of one D, got {real.shape} and {generated.shape}.")
    if min(len(real), len(generated)) <= k or k < 1:
        raise ValueError(
            f"each set needs more than k = {k} images and k at least 1, got {len(real)} and {len(generated)}."
        )
    # float32 stays: distances are exact in either, and float64 would take twice the memory.
    return _floats(real), _floats(generated)


def _floats(features: Features) -> Features:
    return features if features.dtype in (np.float32, np.float64) else features.astype(np.float64)
