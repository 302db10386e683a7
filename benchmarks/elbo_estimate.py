"""The negative ELBO from a few steps: unbiased, with its standard error, by importance sampling over the steps.

The bound is a sum over all T steps. Drawing K of them with probabilities p, with replacement,

    prior + (1 / K) sum_k term(step_k) / p(step_k)

has the bound as its mean. Its spread is least where p follows the root mean square of the terms (Nichol & Dhariwal
2021, section 3.3), which a few pilot images tell.

All images of a run share their steps, so that comparing two images does not depend on which steps were drawn; their
noise is their own. The standard error is that of one image over the steps and noises drawn.

Shapes: B images, K draws, T steps.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minority.diffusion.chain import Chain, Variance
from minority.diffusion.denoiser import Denoiser
from minority.diffusion.noise import NoiseSource
from minority.diffusion.schedule import NoiseSchedule
from minority.diffusion.score import bound_term, negative_elbo, prior_term
from minority.diffusion.space import PIXELS, StateSpace


@dataclass(frozen=True, eq=False)
class ElboEstimate:
    """An estimate of the negative ELBO in bits/dim.

    Attributes:
        total: (B,) unbiased estimates of the bound.
        standard_error: (B,) of each one.
        steps: (K,) int64 the steps that were drawn.
    """

    total: Tensor
    standard_error: Tensor
    steps: NDArray[np.int64]


def estimate_negative_elbo(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    images: Tensor,
    noise: NoiseSource,
    *,
    draws: int,
    seed: int = 0,
    probabilities: NDArray[np.float64] | None = None,
    label: Tensor | None = None,
    variance: Variance = "learned_range",
    space: StateSpace = PIXELS,
) -> ElboEstimate:
    """Estimate the bound from K network calls.

    Args:
        denoiser: The backbone's denoiser.
        schedule: The (respaced) chain whose bound is wanted.
        images: (B, C, H, W) in [-1, 1], on the grid of 8-bit images.
        noise: The batch's noise.
        draws: K, at least 2, or there is no standard error.
        seed: Decides the steps.
        probabilities: (T,) of the steps, all positive, summing to 1; None draws all steps alike.
        label: (B,) int64 labels, or None.
        variance: The reverse variance (minority/diffusion/chain.py).
        space: Where clean states lie; see `negative_elbo`.

    Raises:
        ValueError: Where there are too few draws, or the probabilities are none.
    """
    if draws < 2:
        raise ValueError(f"draws must be at least 2 for a standard error, got {draws}.")
    p = np.full(schedule.num_steps, 1 / schedule.num_steps) if probabilities is None else np.asarray(probabilities)
    if p.shape != (schedule.num_steps,) or not (p > 0).all() or abs(p.sum() - 1) > 1e-6:
        raise ValueError(f"probabilities must be {schedule.num_steps} positive numbers that sum to 1.")
    steps = np.random.default_rng(seed).choice(schedule.num_steps, size=draws, p=p / p.sum())
    chain = Chain(denoiser, schedule, label, variance=variance, space=space)
    weighted = []
    with torch.no_grad():
        for draw, step in enumerate(steps.tolist()):
            # A step that is drawn twice gets fresh noise: the draw's number is part of the noise's address.
            x_t = schedule.noised(images, step, noise.score(step, draw).to(images))
            estimate = chain.estimate(x_t, step)
            weighted.append(bound_term(chain, estimate, images, chain.space.clipped(estimate.x0_hat)) / float(p[step]))
    terms = torch.stack(weighted, dim=1)  # (B, K)
    return ElboEstimate(
        total=prior_term(schedule, images) + terms.mean(dim=1),
        standard_error=terms.std(dim=1) / draws**0.5,
        steps=steps,
    )


def step_importance(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    pilot: Tensor,
    noise: NoiseSource,
    *,
    label: Tensor | None = None,
    variance: Variance = "learned_range",
    uniform_share: float = 0.1,
) -> NDArray[np.float64]:
    """Probabilities of the steps under which the estimate spreads least, learnt from some images.

    Args:
        denoiser: The backbone's denoiser.
        schedule: The (respaced) chain.
        pilot: (B, C, H, W) images like those that will be scored; some ten are enough.
        noise: Their noise.
        label: (B,) int64 labels, or None.
        variance: The reverse variance.
        uniform_share: Share of the probability that is spread evenly, in (0, 1], so that no weight explodes.

    Returns:
        (T,) float64, positive, summing to 1.
    """
    if not 0 < uniform_share <= 1:
        raise ValueError(f"uniform_share must lie in (0, 1], got {uniform_share}.")
    terms = negative_elbo(denoiser, schedule, pilot, noise, label=label, variance=variance).steps
    size = terms.double().square().mean(dim=0).sqrt().cpu().numpy()
    total = size.sum()
    best = size / total if total > 0 else np.full(len(size), 1 / len(size))
    return np.asarray((1 - uniform_share) * best + uniform_share / len(size))
