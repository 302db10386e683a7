"""Metrics of a set with intervals, and warnings where a set is too small to mean anything.

Shapes: N real and M generated images, D features.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from minority.evaluation.kernel_distance import kernel_distance
from minority.evaluation.metrics import compare_pairs, frechet_distance_and_error
from minority.neighbours.pairwise import Features

Float64 = NDArray[np.float64]

_FEW = 100  # images below which shares of a set are hardly more than anecdotes
_Z = 1.96  # 95 %


class Figure(NamedTuple):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class SetReport:
    """Figures by name, and what makes some of them doubtful.

    The names: avg_knn, lof, rarity_score (of the images inside the real manifold), precision, recall, density,
    coverage, fid, fid_rare (to the rarest real images), kid, sfid (where spatial features are given), rare (share
    beyond the quantile of real images), copies (share nearer to a real image than all but 1 % of those are to one
    another), yield (share that is rare, inside the real manifold and no copy).

    Attributes:
        figures: Name -> figure with its interval.
        warnings: Sentences for people, none where nothing is doubtful.
    """

    figures: dict[str, Figure]
    warnings: list[str]


def report_set(
    real: Features,
    generated: Features,
    *,
    k: int = 5,
    rare_quantile: float = 0.9,
    spatial: tuple[Features, Features] | None = None,
    draws: int = 200,
    seed: int = 0,
) -> SetReport:
    """Measure a generated set against a real one.

    Means and shares are resampled over the images that they are means of (bootstrap, Efron 1979). Frechet distances
    get 1.96 standard errors around the value itself, since resampling biases them upwards; they cover the generated
    images only.

    Args:
        real: (N, D).
        generated: (M, D).
        k: Neighbours of every neighbour metric.
        rare_quantile: Rare lies beyond this quantile of the real images' own mean distance to k neighbours; `fid_rare`
            compares with those beyond it.
        spatial: (N, S) and (M, S) features that know where things are, for sFID.
        draws: Bootstrap draws of means and shares.
        seed: Decides all draws.

    Raises:
        ValueError: Where a set has no more than k images, or numbers of features differ.
    """
    if min(len(real), len(generated)) <= k or real.shape[1] != generated.shape[1]:
        raise ValueError(
            f"each set needs more than k = {k} images and as many features as the other, got {real.shape} and "
            f"{generated.shape}."
        )
    rng = np.random.default_rng(seed)
    pairs = compare_pairs(real, generated, k=k)
    among_real, distances, balls = pairs.among_real.distances, pairs.to_real.distances, pairs.balls
    inside, sparse = balls.counts > 0, np.quantile(among_real.mean(axis=1), rare_quantile)
    rare = distances.mean(axis=1) > sparse
    copies = distances[:, 0] <= np.quantile(among_real[:, 0], 0.01)

    def mean(values: NDArray[np.generic]) -> Figure:
        return _mean(np.asarray(values, dtype=np.float64), rng, draws=draws)

    figures = {
        "avg_knn": mean(distances.mean(axis=1)),
        "lof": mean(pairs.lof),
        "rarity_score": mean(balls.smallest[inside]),
        "precision": mean(inside),
        "recall": mean(pairs.recalled),
        "density": mean(balls.counts / k),
        "coverage": mean(balls.covered),
        "fid": _frechet(real, generated),
        "fid_rare": _frechet(real[among_real.mean(axis=1) >= sparse], generated),
        "kid": _kernel(real, generated, seed=seed),
        "rare": mean(rare),
        "copies": mean(copies),
        "yield": mean(rare & inside & ~copies),
    }
    if spatial is not None:
        figures["sfid"] = _frechet(*spatial)
    return SetReport(figures=figures, warnings=_warnings(real, generated, rare_quantile=rare_quantile))


def _mean(values: Float64, rng: np.random.Generator, *, draws: int) -> Figure:
    if len(values) == 0:
        return Figure(float("nan"), float("nan"), float("nan"))
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(draws)]
    low, high = np.quantile(means, [0.025, 0.975])
    return Figure(float(values.mean()), float(low), float(high))


def _frechet(real: Features, generated: Features) -> Figure:
    value, error = frechet_distance_and_error(real, generated)
    return Figure(value, max(0.0, value - _Z * error), value + _Z * error)


def _kernel(real: Features, generated: Features, *, seed: int) -> Figure:
    value, error = kernel_distance(real, generated, seed=seed)
    return Figure(value, value - _Z * error, value + _Z * error)


def _warnings(real: Features, generated: Features, *, rare_quantile: float) -> list[str]:
    warnings = []
    for name, features in (("real", real), ("generated", generated)):
        if len(features) < _FEW:
            warnings.append(f"{len(features)} {name} images are too few: every share may be off by tens of points.")
        if len(features) <= features.shape[1]:
            warnings.append(
                f"{len(features)} {name} images give a singular covariance of {features.shape[1]} features: FID, and "
                "sFID too, compare only with figures at the same numbers of images."
            )
    rarest = round((1 - rare_quantile) * len(real))
    if rarest <= real.shape[1]:
        warnings.append(
            f"fid_rare compares with {rarest} rare real images in {real.shape[1]} dimensions: read it as a rank."
        )
    return warnings
