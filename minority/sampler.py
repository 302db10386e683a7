"""The ancestral sampler (Ho et al. 2020, algorithm 2), guided or not.

One loop for every method: start hot, walk down, let guidance shift each arrival where it acts.

Shapes: B samples, C channels, H x W pixels; images are in [-1, 1].
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minority.chain import Chain, Cost, Estimate, Variance
from minority.denoiser import Denoiser
from minority.guidance import Guidance
from minority.noise import NoiseSource
from minority.schedule import NoiseSchedule


@dataclass(frozen=True, eq=False)
class Arrival:
    """What one step leaves behind, for callbacks.

    Attributes:
        step: The step that was left.
        x: (B, C, H, W) the state after it.
        x0: (B, C, H, W) the clipped clean estimate that it used.
    """

    step: int
    x: Tensor
    x0: Tensor


def sample(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    noise: NoiseSource,
    *,
    label: Tensor | None = None,
    guidance: Sequence[Guidance] = (),
    variance: Variance = "learned_range",
    on_step: Callable[[Arrival], None] | None = None,
) -> tuple[Tensor, Cost]:
    """Draw images.

    Args:
        denoiser: The backbone's denoiser.
        schedule: The (respaced) chain to walk.
        noise: The batch's noise; its shape decides B, C, H, W.
        label: (B,) int64 labels for a class-conditional backbone.
        guidance: Methods that steer the chain; at most one of them may choose its start.
        variance: The reverse variance (minority/chain.py).
        on_step: Called after every step.

    Returns:
        The images (B, C, H, W), nominally in [-1, 1] but not clipped, and what a sample cost.

    Raises:
        ValueError: Where two methods want to choose the start.
    """
    chain = Chain(denoiser, schedule, label, variance=variance)
    x_t, first = _start(schedule, noise, guidance)
    for step in range(first, -1, -1):
        active = [method for method in guidance if method.acts_at(step, schedule.num_steps)]
        differentiable = any(method.needs_gradient for method in active)
        with torch.set_grad_enabled(differentiable):
            estimate = chain.estimate(x_t.detach().requires_grad_(differentiable), step)
        shifts = [method.shift(estimate, chain, noise) for method in active]
        x_t, x0 = _ancestral_step(chain, estimate.detach(), shifts, noise)
        if on_step is not None:
            on_step(Arrival(step=step, x=x_t, x0=x0))
    return x_t, chain.cost


def _start(schedule: NoiseSchedule, noise: NoiseSource, guidance: Sequence[Guidance]) -> tuple[Tensor, int]:
    starts = [start for method in guidance if (start := method.start(schedule, noise)) is not None]
    if len(starts) > 1:
        raise ValueError("two guidance methods want to choose the start of the chain; leave one of them out.")
    return starts[0] if starts else (noise.start(), schedule.num_steps - 1)


def _ancestral_step(
    chain: Chain, estimate: Estimate, shifts: Sequence[Tensor], noise: NoiseSource
) -> tuple[Tensor, Tensor]:
    x0 = estimate.x0_hat.clamp(-1, 1)
    x = chain.posterior_mean(estimate, x0)
    for shift in shifts:
        x = x + shift
    if estimate.step > 0:
        x = x + (0.5 * estimate.log_variance).exp() * noise.ancestral(estimate.step)
    return x, x0
