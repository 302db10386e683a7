"""Scores of finished images: the minority score and the negative ELBO in bits/dim.

Both ask the backbone how surprising an image is; larger = rarer. Every score of an image depends on that image, its
label and its own noise only.

Shapes: B samples, C channels, H x W pixels; images are in [-1, 1].
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minority.diffusion.chain import Chain, Estimate, Variance
from minority.diffusion.denoiser import Denoiser
from minority.diffusion.minority_metric import Distance, renoise_and_denoise, squared_error
from minority.diffusion.noise import NoiseSource
from minority.diffusion.schedule import NoiseSchedule
from minority.diffusion.space import PIXELS, StateSpace


def minority_score(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    images: Tensor,
    noise: NoiseSource,
    *,
    label: Tensor | None = None,
    perturbations: Sequence[float] = (0.5,),
    draws: int = 1,
    distance: Distance = squared_error,
) -> Tensor:
    """The minority metric of finished images, averaged over perturbation steps and noises.

    Args:
        denoiser: The backbone's denoiser.
        schedule: The chain on which the perturbation steps are counted.
        images: (B, C, H, W) in [-1, 1].
        noise: The batch's noise.
        label: (B,) int64 labels, or None.
        perturbations: Perturbation steps s as fractions of the chain.
        draws: Noises a perturbation step.
        distance: d; the squared error is the published choice for scoring.

    Returns:
        (B,) scores >= 0, larger = rarer.
    """
    chain = Chain(denoiser, schedule, label)
    scores = []
    for fraction in perturbations:
        step = schedule.step_at(fraction)
        for draw in range(draws):
            estimate = renoise_and_denoise(chain, images, step, noise.score(step, draw), clip=False)
            scores.append(distance(images, estimate))
    return torch.stack(scores).mean(dim=0)


def minority_profile(
    denoiser: Denoiser, schedule: NoiseSchedule, images: Tensor, noise: NoiseSource, *, label: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The minority score at every step, and the error of the predicted noise in the same network calls.

    Um & Ye (2024) prove that, with the squared error, the scores weighted by abar_s / (1 - abar_s) sum to the
    simplified negative ELBO, the sum of the squared noise errors (Ho et al. 2020, the "simple" loss), up to a
    constant factor.

    Args:
        denoiser: The backbone's denoiser.
        schedule: The (respaced) chain.
        images: (B, C, H, W) in [-1, 1].
        noise: The batch's noise, one draw a step.
        label: (B,) int64 labels, or None.

    Returns:
        (B, T) minority scores (squared error) and (B, T) squared errors of the noise, column = step.
    """
    chain = Chain(denoiser, schedule, label)
    scores, errors = [], []
    with torch.no_grad():
        for step in range(schedule.num_steps):
            eps = noise.score(step, 0).to(images)
            estimate = chain.estimate(schedule.noised(images, step, eps), step)
            scores.append(squared_error(images, estimate.x0_hat))
            errors.append(squared_error(eps, estimate.eps))
    return torch.stack(scores, dim=1), torch.stack(errors, dim=1)


@dataclass(frozen=True, eq=False)
class NegativeElbo:
    """The negative evidence lower bound of images, in bits/dim.

    Attributes:
        total: (B,) the bound: prior plus the sum of all steps.
        prior: (B,) KL divergence of q(x_T | x_0) from the standard normal.
        steps: (B, T) the term of each step, column = step (0 = cleanest, the discretised likelihood).
        x0_error: (B, T) mean squared error of the clipped clean estimate at each step.
        eps_error: (B, T) mean squared error of the noise that leads from that estimate to x_t.
    """

    total: Tensor
    prior: Tensor
    steps: Tensor
    x0_error: Tensor
    eps_error: Tensor


def negative_elbo(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    images: Tensor,
    noise: NoiseSource,
    *,
    label: Tensor | None = None,
    variance: Variance = "learned_range",
    space: StateSpace = PIXELS,
) -> NegativeElbo:
    """The full variational bound, one noise a step (Ho et al. 2020, eq. 5; Nichol & Dhariwal 2021, section 3).

    Of states that are no 8-bit images, such as latents, it is the bound of their density: in bits a dimension of the
    state, possibly negative, and to be compared within one space only.

    Args:
        denoiser: The backbone's denoiser.
        schedule: The (respaced) chain whose bound is wanted.
        images: (B, C, H, W) in [-1, 1], on the grid of 8-bit images; or clean states of another space.
        noise: The batch's noise.
        label: (B,) int64 labels, or None.
        variance: The reverse variance (minority/diffusion/chain.py).
        space: Where clean states lie.
    """
    chain = Chain(denoiser, schedule, label, variance=variance, space=space)
    terms, x0_errors, eps_errors = [], [], []
    with torch.no_grad():
        for step in range(schedule.num_steps):
            eps = noise.score(step, 0)
            estimate = chain.estimate(schedule.noised(images, step, eps), step)
            x0 = space.clipped(estimate.x0_hat)
            terms.append(bound_term(chain, estimate, images, x0))
            x0_errors.append(_mean(torch.square(x0 - images)))
            eps_errors.append(_mean(torch.square(schedule.eps_from_x0(estimate.x_t, step, x0) - eps)))
    steps = torch.stack(terms, dim=1)
    prior = prior_term(schedule, images)
    return NegativeElbo(
        total=prior + steps.sum(dim=1),
        prior=prior,
        steps=steps,
        x0_error=torch.stack(x0_errors, dim=1),
        eps_error=torch.stack(eps_errors, dim=1),
    )


def bound_term(chain: Chain, estimate: Estimate, images: Tensor, x0: Tensor) -> Tensor:
    """One step's term of the bound in bits/dim, (B,): a KL divergence, or the likelihood at step 0.

    Args:
        chain: The denoiser and its schedule.
        estimate: At the noised images.
        images: (B, C, H, W) the clean images.
        x0: (B, C, H, W) the clean estimate that the reverse step uses.
    """
    mean = chain.posterior_mean(estimate, x0)
    if estimate.step == 0:
        likelihood = discretised_negative_log_likelihood if chain.space.discretised else _normal_negative_log_likelihood
        return _mean(likelihood(images, mean, 0.5 * estimate.log_variance)) / math.log(2)
    true_mean = chain.posterior_mean(estimate, images)
    true_log_variance = float(chain.schedule.posterior_log_variance[estimate.step])
    return _mean(normal_kl(true_mean, true_log_variance, mean, estimate.log_variance)) / math.log(2)


def prior_term(schedule: NoiseSchedule, images: Tensor) -> Tensor:
    """KL divergence of q(x_T | x_0) from the standard normal in bits/dim, (B,)."""
    last = float(schedule.abar[-1])
    zero = torch.zeros_like(images)
    return _mean(normal_kl(math.sqrt(last) * images, math.log(1 - last), zero, zero)) / math.log(2)


def normal_kl(mean: Tensor, log_variance: float | Tensor, other_mean: Tensor, other_log_variance: Tensor) -> Tensor:
    """KL divergence of the second normal from the first, elementwise, in nats; shapes broadcast."""
    return 0.5 * (
        -1.0
        + other_log_variance
        - log_variance
        + torch.exp(log_variance - other_log_variance)
        + torch.square(mean - other_mean) * torch.exp(-other_log_variance)
    )


def discretised_negative_log_likelihood(images: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """-log P of each pixel's 8-bit bin under a normal (Ho et al. 2020, eq. 13), elementwise, in nats.

    Args:
        images: (B, C, H, W) in [-1, 1], on the grid of 8-bit images.
        mean: Of the normal.
        log_std: Logarithm of its deviation; broadcasts.
    """
    inverse_std = torch.exp(-log_std)
    above = _normal_cdf((images - mean + 1 / 255) * inverse_std)
    below = _normal_cdf((images - mean - 1 / 255) * inverse_std)
    probability = torch.where(images < -0.999, above, torch.where(images > 0.999, 1 - below, above - below))
    return -torch.log(probability.clamp(min=1e-12))


def _normal_negative_log_likelihood(states: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """-log of a normal's density, in nats."""
    return 0.5 * (math.log(2 * math.pi) + torch.square((states - mean) * torch.exp(-log_std))) + log_std


def _normal_cdf(x: Tensor) -> Tensor:
    # The tanh approximation of the published likelihoods, so that bits/dim compare with theirs.
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _mean(values: Tensor) -> Tensor:
    return values.flatten(1).mean(dim=1)
