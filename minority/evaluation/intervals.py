"""Intervals: how far chance alone could move a figure.

Shapes: N real and M generated images, D features.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Statistic = Callable[[NDArray[np.int64], NDArray[np.int64]], float]


def wilson(successes: float, trials: float, *, z: float = 1.96) -> tuple[float, float]:
    """A 95 % interval of a share (Wilson 1927); numbers need not be whole, as effective ones are not.

    Args:
        successes: In [0, trials].
        trials: At least 0; of none, the interval is [0, 1].
        z: Standard deviations of a normal that the interval reaches to either side; 1.96 are 95 %.

    Returns:
        Its ends, in [0, 1].

    Example:
        >>> low, high = wilson(46, 100)
        >>> f"{low:.3f} ... {high:.3f}"
        '0.366 ... 0.557'
    """
    if trials == 0:
        return 0.0, 1.0
    share, width = min(1.0, successes / trials), z * z / trials
    middle = (share + width / 2) / (1 + width)
    half = z / (1 + width) * math.sqrt(share * (1 - share) / trials + width / (4 * trials))
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap_interval(
    statistic: Statistic, *, num_real: int, num_generated: int, draws: int = 200, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """An interval of a figure of two sets (Efron 1979): it is computed again on images drawn with replacement.

    Args:
        statistic: Takes places in the real and in the generated set, each possibly doubled, and gives the figure.
        num_real: N.
        num_generated: M.
        draws: How often.
        seed: Decides the draws.
        level: Of the interval, in (0, 1).

    Returns:
        The lower and the upper quantile; NaN where the figure is NaN for every draw.
    """
    rng = np.random.default_rng(seed)
    values = [
        statistic(rng.integers(num_real, size=num_real), rng.integers(num_generated, size=num_generated))
        for _ in range(draws)
    ]
    if np.isnan(values).all():
        return math.nan, math.nan
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
