"""What a near-copy of a training image is: the one rule behind the verdict `new`, for every filter.

Shapes: M candidates.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from minority.neighbours.reference import Neighbourhood


def no_near_copy(neighbourhood: Neighbourhood, thresholds: Mapping[str, float]) -> NDArray[np.bool_]:
    """Which candidates are near-copies of no training image.

    A candidate is new where it lies farther from its nearest training image than `nearest_distance`, a low quantile of
    what training images lie from one another (`SelectionSettings.copy_quantile`). In sparse places images lie so far
    apart that a blurred or shifted copy gets past that; so where a floor `copy_ratio` is known, its nearest one must
    besides not be far nearer than its other neighbours are (`HeldOutRules.copy_ratio`).

    Args:
        neighbourhood: Where the M candidates lie among the training images, with mirrored ones where these count.
        thresholds: A filter's: `nearest_distance`, and `copy_ratio` where the filter has that floor.

    Returns:
        (M,) true where a candidate is new.
    """
    new: NDArray[np.bool_] = neighbourhood.nearest_distance > thresholds["nearest_distance"]
    if "copy_ratio" in thresholds:
        new = new & (neighbourhood.copy_ratio >= thresholds["copy_ratio"])
    return new
