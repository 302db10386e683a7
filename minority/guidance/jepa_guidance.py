"""JEPA guidance (Park & Um, ICML 2026): rarity in the eyes of an encoder that has seen the world.

An encoder trained without collapse stretches space where its data are dense and hardly where they are rare, so the
log-volume of its Jacobian J at an image, the sum of the logarithms of its singular values, is a density. Guidance
lowers the largest k of them, found by a randomised SVD (Halko, Martinsson & Tropp 2011) with exact products: J^T u by
a backward pass, J v by a backward pass through that one.

    x_{t-1} <- x_{t-1} - w g / max|g|,   g = grad sum_{i <= k} log sigma_i(J(x0_hat))

Shapes: B samples, C channels, H x W pixels, P = C H W, D features, R probes; images are in [-1, 1].
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from minority.diffusion.chain import Chain, Estimate
from minority.diffusion.noise import NoiseSource
from minority.guidance import Guidance
from minority.guidance.gradients import finite, through_denoiser, unit_peak

Encoder = Callable[[Tensor], Tensor]  # (B, C, H, W) in [-1, 1] -> (B, D)


@dataclass(frozen=True, kw_only=True, eq=False)
class JepaGuidance(Guidance):
    """Pushes each guided step down the encoder's density.

    Attributes:
        encoder: Differentiable twice; minority/features/encoders.py loads some.
        scale: w; published: 0.5 for latent text-to-image chains.
        top: k, the singular values that count; published: 9.
        oversampling: Probes beyond k, at least 0.
        iterations: Subspace iterations, at least 0.
        interval: Steps whose index is a multiple of it are guided.
        below: Guide only below this fraction of the chain (towards images), in (0, 1]; published: 0.8.
        scaling: "fixed" as published by default, or times the step's "variance".
        jacobian: Differentiate through the denoiser (as published), or take the gradient at x0_hat.
    """

    encoder: Encoder
    scale: float = 0.5
    top: int = 9
    oversampling: int = 2
    iterations: int = 2
    interval: int = 1
    below: float = 0.8
    scaling: Literal["variance", "fixed"] = "fixed"
    jacobian: bool = True

    def __post_init__(self) -> None:
        if self.top < 1 or self.interval < 1:
            raise ValueError(f"JepaGuidance.top and .interval must be at least 1, got {self.top} and {self.interval}.")
        if self.oversampling < 0 or self.iterations < 0 or not self.scale >= 0:
            raise ValueError(
                "JepaGuidance.oversampling, .iterations and .scale must not be negative, got "
                f"{self.oversampling}, {self.iterations} and {self.scale}."
            )
        if not 0 < self.below <= 1:
            raise ValueError(f"JepaGuidance.below must lie in (0, 1], got {self.below}.")

    @property
    def needs_gradient(self) -> bool:
        """True where the density is differentiated through the denoiser."""
        return self.jacobian

    def acts_at(self, step: int, num_steps: int) -> bool:
        """Every `interval`-th step below the fraction `below` of the chain."""
        return step % self.interval == 0 and step <= self.below * num_steps

    def shift(self, estimate: Estimate, chain: Chain, noise: NoiseSource) -> Tensor:
        """The push downhill, (B, C, H, W)."""
        probes = torch.stack([noise.probe(estimate.step, draw) for draw in range(self.top + self.oversampling)], dim=1)
        with torch.enable_grad():
            x0 = estimate.x0_hat.detach().requires_grad_(True)
            values = top_singular_values(self.encoder, x0, probes.to(x0), top=self.top, iterations=self.iterations)
            density = values.clamp(min=1e-8).log().sum()
            # A linear encoder has one density everywhere, and no gradient.
            gradient = torch.autograd.grad(density, x0)[0] if density.requires_grad else torch.zeros_like(x0)
        gradient = through_denoiser(gradient, estimate, chain) if self.jacobian else finite(gradient)
        push = -self.scale * unit_peak(gradient)
        return push * estimate.variance.detach() if self.scaling == "variance" else push


def top_singular_values(encoder: Encoder, x: Tensor, probes: Tensor, *, top: int, iterations: int) -> Tensor:
    """The largest singular values of an encoder's Jacobian, differentiable in x.

    Args:
        encoder: See above.
        x: (B, C, H, W) with gradients.
        probes: (B, R, C, H, W) random directions, R >= top; more than D or P of them are left out.
        top: How many, clipped to D and P.
        iterations: Subspace iterations: each sharpens the subspace by a factor of (sigma_k / sigma_R)^2.

    Returns:
        (B, top) in falling order.
    """
    features = encoder(x)
    rank = min(probes.shape[1], features.shape[1], x[0].numel())
    cotangent = torch.zeros_like(features, requires_grad=True)
    (transposed,) = torch.autograd.grad(features, x, grad_outputs=cotangent, create_graph=True)  # J^T u, linear in u
    directions = probes[:, :rank].flatten(2).transpose(1, 2)  # (B, P, R)
    basis = _orthonormal(_push(transposed, cotangent, directions))  # (B, D, R)
    for _ in range(iterations):
        pulled = _orthonormal(_pull(features, x, basis, create_graph=False))
        basis = _orthonormal(_push(transposed, cotangent, pulled))
    within = _pull(features, x, basis, create_graph=True)  # (B, P, R) = J^T Q
    values = torch.linalg.svdvals(within)
    return values[:, : min(top, rank)]


def exact_singular_values(encoder: Encoder, x: Tensor) -> Tensor:
    """All singular values of an encoder's Jacobian by its full matrix, (B, min(D, P)), for small encoders."""
    features = encoder(x)
    rows = [
        torch.autograd.grad(features[:, d].sum(), x, create_graph=True)[0].flatten(1) for d in range(features.shape[1])
    ]
    return torch.linalg.svdvals(torch.stack(rows, dim=1))


def _push(transposed: Tensor, cotangent: Tensor, directions: Tensor) -> Tensor:
    """J V, (B, D, R): the derivative of u -> J^T u is J itself, whatever u."""
    columns = [
        torch.autograd.grad(
            transposed, cotangent, grad_outputs=directions[:, :, r].reshape(transposed.shape), retain_graph=True
        )[0]
        for r in range(directions.shape[2])
    ]
    return torch.stack(columns, dim=2)


def _pull(features: Tensor, x: Tensor, basis: Tensor, *, create_graph: bool) -> Tensor:
    """J^T U by backward passes, (B, P, R)."""
    rows = [
        torch.autograd.grad(features, x, grad_outputs=basis[:, :, r], retain_graph=True, create_graph=create_graph)[0]
        for r in range(basis.shape[2])
    ]
    return torch.stack([row.flatten(1) for row in rows], dim=2)


def _orthonormal(columns: Tensor) -> Tensor:
    return torch.linalg.qr(columns, mode="reduced").Q
