"""How often each image is drawn.

Shapes: N real and M synthetic images, S steps, B images a step.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minority.classifier import balancing_odds
from minority.downstream.arms import Arm
from minority.downstream.data import Bool, Float64, Int64
from minority.downstream.identification import odds_with_share, odds_with_weight


def odds_of(arm: Arm, groups: Int64, *, synthetic_groups: Int64, identified: Bool | None = None) -> Float64:
    """Odds of drawing each real, then each synthetic image while real images are drawn; they sum to 1.

    Args:
        arm: The recipe.
        groups: (N,) groups of the real images.
        synthetic_groups: (M,) groups of the synthetic ones; M is 0 where the arm has none, or its source is empty.
        identified: (N,) the real images that an arm which identifies some draws more often.

    Returns:
        (N + M,).
    """
    num_synthetic = len(synthetic_groups)
    if arm.draws == "filled":
        return balancing_odds(np.concatenate([groups, synthetic_groups]))
    real = _odds_of_real(arm, groups, identified)
    mixed = arm.is_generative and not arm.synthetic_first and num_synthetic > 0
    share = arm.synthetic_share if mixed else 0.0
    return np.concatenate([(1 - share) * real, np.full(num_synthetic, share / max(1, num_synthetic))])


def _odds_of_real(arm: Arm, groups: Int64, identified: Bool | None) -> NDArray[np.float64]:
    if arm.draws == "natural":
        return np.full(len(groups), 1 / len(groups))
    if arm.draws == "group_balanced":
        return balancing_odds(groups)
    assert identified is not None, "identified before"
    if arm.draws == "errors_upweighted":
        return odds_with_weight(identified, weight=arm.upweight)
    return odds_with_share(identified, share=arm.top_share)


def draw(odds: Float64, *, steps: int, batch_size: int, generator: torch.Generator) -> Tensor:
    """Draw the images of every step with replacement. Returns (S, B) int64 positions."""
    # torch.multinomial takes at most 2^24 kinds; searching the cumulated odds takes any number.
    edges = torch.as_tensor(np.cumsum(odds / odds.sum()), dtype=torch.float64)
    uniform = torch.rand((steps, batch_size), generator=generator, dtype=torch.float64)
    return torch.searchsorted(edges, uniform, right=True).clamp(max=int(np.flatnonzero(odds)[-1]))
