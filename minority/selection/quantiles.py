"""Where a score lies among the scores of real images that nothing was fitted on."""

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


def quantile_among(values: NDArray[np.floating], held_out: NDArray[np.floating]) -> Float64:
    """Share of held-out values that are smaller, ties counting half, (M,) in [0, 1].

    Args:
        values: (M,) scores; the quantile of NaN is NaN.
        held_out: (N,) scores of real images, N >= 1; infinite ones are fine, NaN are not.

    Raises:
        ValueError: Where there is no held-out value, or one that is NaN.

    Example:
        >>> quantile_among(np.array([0.5, 3.5]), np.array([1.0, 2.0, 3.0, 4.0])).tolist()
        [0.0, 0.75]
    """
    if len(held_out) == 0 or np.isnan(held_out).any():
        raise ValueError(f"quantiles need held-out values that are numbers, got {len(held_out)} with NaN or none.")
    ordered = np.sort(held_out)
    below, up_to = np.searchsorted(ordered, values, side="left"), np.searchsorted(ordered, values, side="right")
    return np.where(np.isnan(values), np.nan, (below + up_to) / (2 * len(ordered)))


def lower_limit(held_out: NDArray[np.floating], *, quantile: float) -> float:
    """The value that at most the share `quantile` of held-out values lies below.

    The lower order statistic is taken, not an interpolation, so that the promise holds for few values too.
    """
    return float(np.quantile(held_out, quantile, method="lower"))
