"""Kernel distance between two sets of features (KID: Binkowski et al., ICLR 2018)."""

import numpy as np

from minority.neighbours.pairwise import Features


def kernel_distance(
    real: Features, generated: Features, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Unbiased squared maximum mean discrepancy with the kernel (x.y / D + 1)^3, averaged over subsets.

    The subsets are those that clean-fid draws after numpy.random.seed(seed), so the figures agree.

    Args:
        real: (N, D).
        generated: (M, D).
        subsets: How many pairs of subsets.
        subset_size: Images in each; at most N and M.
        seed: Decides the subsets.

    Returns:
        The mean over subsets (0 for equal distributions, may be slightly negative), and its standard error.

    Raises:
        ValueError: For sets of fewer than two images.
    """
    size = min(len(real), len(generated), subset_size)
    if size < 2:
        raise ValueError(f"the kernel distance needs two images a set, got {len(real)} and {len(generated)}.")
    rng = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        x = np.asarray(generated[rng.choice(len(generated), size, replace=False)], dtype=np.float64)
        y = np.asarray(real[rng.choice(len(real), size, replace=False)], dtype=np.float64)
        values.append(_discrepancy(x, y))
    return float(np.mean(values)), float(np.std(values) / np.sqrt(subsets))


def _discrepancy(x: np.ndarray, y: np.ndarray) -> float:
    size, dimensions = x.shape
    within = (x @ x.T / dimensions + 1) ** 3 + (y @ y.T / dimensions + 1) ** 3
    across = (x @ y.T / dimensions + 1) ** 3
    mean_within = (within.sum() - np.trace(within)) / (size * (size - 1))
    return float(mean_within - 2 * across.mean())
