"""The minority metric: how far a clean estimate moves when it is noised again and denoised (Um & Ye, ECCV 2024).

    L(x_t, s) = E_eps[ d( x0_hat(x_t), stopgrad x0_hat'(x_s) ) ]
          x_s = sqrt(abar_s) x0_hat(x_t) + sqrt(1 - abar_s) eps

A common image survives being noised and denoised; a rare one is pulled back towards the crowd. Weighted and summed
over s, with the squared error as distance, it is the negative ELBO up to a constant.

Shapes: B samples, C channels, H x W pixels; images are in [-1, 1].
"""

from collections.abc import Callable

import torch
from torch import Tensor

from minority.diffusion.chain import Chain

Distance = Callable[[Tensor, Tensor], Tensor]  # two (B, C, H, W) -> (B,)


def squared_error(a: Tensor, b: Tensor) -> Tensor:
    """Sum of squared differences of each sample, (B,)."""
    return (a - b).flatten(1).square().sum(dim=1)


def lp_norm(p: float) -> Distance:
    """The L_p norm of the difference, not raised to the p-th power; p >= 1."""
    if not p >= 1:
        raise ValueError(f"the norm's p must be at least 1, got {p}.")

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return torch.linalg.vector_norm((a - b).flatten(1), ord=p, dim=1)

    return distance


def renoise_and_denoise(chain: Chain, x0: Tensor, step: int, eps: Tensor, *, clip: bool) -> Tensor:
    """Noise clean images to `step` and estimate them again, without gradients.

    Args:
        chain: The denoiser and its schedule.
        x0: (B, C, H, W) clean images or estimates.
        step: Where x_s sits on the chain.
        eps: (B, C, H, W) the noise to use.
        clip: Whether the estimate is clipped to where clean states lie.

    Returns:
        (B, C, H, W) x0_hat'(x_s).
    """
    with torch.no_grad():
        estimate = chain.estimate(chain.schedule.noised(x0.detach(), step, eps), step).x0_hat
        return chain.space.clipped(estimate) if clip else estimate
