"""The sampling loop: one for every solver and every guidance method.

Start hot, step down, let guidance shift each arrival where it acts.

Shapes: B samples, C channels, H x W pixels; images are in [-1, 1].
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from minority.diffusion.chain import Chain, Cost, Estimate, Variance
from minority.diffusion.condition import Condition
from minority.diffusion.denoiser import Denoiser
from minority.diffusion.noise import NoiseSource
from minority.diffusion.schedule import NoiseSchedule
from minority.diffusion.space import PIXELS, StateSpace
from minority.guidance import Guidance, check_combination
from minority.solvers import Arrival, Move, Solver
from minority.solvers.ancestral import Ancestral

_ANCESTRAL = Ancestral()


def sample(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    noise: NoiseSource,
    *,
    label: Tensor | None = None,
    condition: Condition = None,
    guidance: Sequence[Guidance] = (),
    variance: Variance = "learned_range",
    solver: Solver = _ANCESTRAL,
    space: StateSpace = PIXELS,
    on_step: Callable[[Arrival], None] | None = None,
) -> tuple[Tensor, Cost]:
    """Draw images.

    Args:
        denoiser: The backbone's denoiser.
        schedule: The (respaced) chain.
        noise: The batch's noise; its shape decides B, C, H, W.
        label: (B,) int64 labels for a class-conditional backbone.
        condition: What the network is told instead of the labels: rows of a table of prompts, or embeddings.
        guidance: Methods that steer the chain; at most one of them may choose its start.
        variance: The reverse variance (minority/diffusion/chain.py).
        solver: How the chain is solved (minority/solvers).
        space: Where clean states lie; images by default.
        on_step: Called after every step.

    Returns:
        The clean states (B, C, H, W), nominally where clean states lie but not clipped, and what a sample cost.

    Raises:
        ValueError: Where methods cannot be combined with one another or with the solver.
    """
    check_combination(guidance, solver)
    chain = Chain(denoiser, schedule, label, variance=variance, space=space, condition=condition)
    for method in guidance:
        chain.predict, noise = method.wrap_chain(chain), method.wrap_noise(noise)
    x_t, first = _start(schedule, noise, guidance)
    arrival: Arrival | None = None
    for step in range(first, -1, -1):
        active = [method for method in guidance if method.acts_at(step, schedule.num_steps)]
        for method in guidance:
            method.condition(x_t.detach(), step, chain, noise)
        chain.pullbacks = sum(method.needs_gradient for method in active)
        with torch.set_grad_enabled(chain.pullbacks > 0):
            estimate = chain.estimate(x_t.detach().requires_grad_(chain.pullbacks > 0), step)
        shifts = [method.shift(estimate, chain, noise) for method in active]
        estimate = estimate.detach()
        with torch.no_grad():
            move = solver.move(chain, estimate, arrival)
            parents = _parents(guidance, estimate, chain, noise)
            arrival = _land(move, step, shifts, parents, noise)
            if parents is not None:
                chain.follow(parents)
            arrival = replace(arrival, x=_constrained(arrival.x, step, schedule, guidance, noise))
        x_t = arrival.x
        if on_step is not None:
            on_step(arrival)
    return x_t, chain.cost


def _start(schedule: NoiseSchedule, noise: NoiseSource, guidance: Sequence[Guidance]) -> tuple[Tensor, int]:
    starts = [start for method in guidance if (start := method.start(schedule, noise)) is not None]
    if len(starts) > 1:
        raise ValueError("two guidance methods want to choose the start of the chain; leave one of them out.")
    return starts[0] if starts else (noise.start(), schedule.num_steps - 1)


def _parents(guidance: Sequence[Guidance], estimate: Estimate, chain: Chain, noise: NoiseSource) -> Tensor | None:
    choices = [method.resample(estimate, chain, noise) for method in guidance]
    return next((parents for parents in choices if parents is not None), None)


def _constrained(
    x: Tensor, step: int, schedule: NoiseSchedule, guidance: Sequence[Guidance], noise: NoiseSource
) -> Tensor:
    for method in guidance:
        x = method.constrain(x, step, schedule, noise)
    return x


def _land(move: Move, step: int, shifts: Sequence[Tensor], parents: Tensor | None, noise: NoiseSource) -> Arrival:
    x, deviation, x0 = move.mean, move.deviation, move.x0
    for shift in shifts:
        x = x + shift
    if parents is not None:
        # A branch continues its parent's chain, with the noise of its own place from here on.
        x, x0 = x[parents], x0[parents]
        deviation = deviation[parents] if deviation is not None and len(deviation) > 1 else deviation
    if step > 0 and deviation is not None:
        x = x + deviation * noise.ancestral(step)
    return Arrival(step=step, x=x, x0=x0, parents=parents)


__all__ = ["Arrival", "sample"]
