"""JEPA guidance (Park & Um, ICML 2026): rarity in the eyes of an encoder that has seen the world.

An encoder trained without collapse stretches space where its data are dense and hardly where they are rare, so the
log-volume of its Jacobian J at an image, the sum of the logarithms of its singular values, is a density. Guidance
lowers the largest k of them, found by a randomised SVD (Halko, Martinsson & Tropp 2011) with exact products: J^T u by
a backward pass, J v by a backward pass through that one.

    x_{t-1} <- x_{t-1} - w g / max|g|,   g = grad sum_{i <= k} log sigma_i(J(x0_hat))

Shapes: B samples, C channels, H x W pixels, P = C H W, D features, R probes; images are in [-1, 1].
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from minority.backbones import Backbone
from minority.diffusion.chain import Chain, Estimate
from minority.diffusion.noise import NoiseSource
from minority.features.encoders import load_encoder
from minority.guidance import Guidance
from minority.guidance.gradients import finite, refusal_where_offloaded, through_denoiser, unit_peak
from minority.guidance.materials import Lessons, Materials, Parts, Tensors
from minority.guidance.method import TrainedMethod
from minority.guidance.noise_aware_network import NoiseAwareSettings, load_network, train_on_states

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


@dataclass(frozen=True, kw_only=True)
class JepaGuidanceSettings(TrainedMethod):
    """JEPA guidance by an encoder from a file, or by a small classifier that learns the labels first.

    Attributes:
        scale: w, at least 0; published: 0.5 for latent text-to-image chains.
        top: k, the singular values that count, at least 1; published: 9.
        oversampling: Probes beyond k, at least 0.
        iterations: Subspace iterations, at least 0.
        interval: Steps whose index is a multiple of it are guided; at least 1.
        below: Guide only below this fraction of the chain (towards images), in (0, 1]; published: 0.8.
        scaling: "fixed" as published, or times the step's "variance".
        jacobian: Differentiate through the denoiser (as published), or take the gradient at x0_hat.
        weights: The path of an encoder's weights (minority/features/encoders.py); None: the features, without noise,
            of a noise-aware classifier that learns the labels of the real training images.
        network: What torchvision calls that encoder; without effect where there are no weights.
        size: Side in pixels of that encoder's input.
        training: The budget of the classifier.
    """

    key: ClassVar[str] = "jepa_guidance"
    paper: ClassVar[str] = "Park & Um, ICML 2026"
    line: ClassVar[str] = "lowers the density that an encoder's Jacobian gives the clean estimate"
    steering: ClassVar[tuple[str, ...]] = (
        "scale",
        "top",
        "oversampling",
        "iterations",
        "interval",
        "below",
        "scaling",
        "jacobian",
        "weights",
        "network",
        "size",
    )

    scale: float = 0.5
    top: int = 9
    oversampling: int = 2
    iterations: int = 2
    interval: int = 1
    below: float = 0.8
    scaling: Literal["variance", "fixed"] = "fixed"
    jacobian: bool = True
    weights: str | None = None
    network: str = "resnet18"
    size: int = 224
    training: NoiseAwareSettings = field(default_factory=NoiseAwareSettings)

    def __post_init__(self) -> None:
        self._guidance(_no_encoder)  # refuses what cannot work

    def refusal(self, backbone: Backbone) -> str | None:
        """Needs the decoder, through which its encoder looks, to stay on the device."""
        return refusal_where_offloaded(backbone, network=self.jacobian, decoder=True)

    @classmethod
    def samplers(cls) -> Mapping[str, Self]:
        """The published settings, and cheaper ones that suit the digits."""
        return {
            "jepa-published": cls(),
            "jepa": cls(scale=2.0, top=5, scaling="variance", interval=5, jacobian=False),
        }

    @property
    def part_names(self) -> tuple[str, ...]:
        """The classifier, unless the encoder comes from a file."""
        return ("classifier",) if self.weights is None else ()

    def train(self, part: str, lessons: Lessons, done: Parts) -> Tensors:
        """Train the classifier.

        Raises:
            ValueError: There is one class alone.
        """
        if len(np.unique(lessons.labels)) < 2:
            raise ValueError(
                "jepa_guidance learns an encoder from labels, and the real images have one class; give weights and "
                "network of an encoder."
            )
        return train_on_states(
            lessons.states,
            lessons.labels,
            num_outputs=int(lessons.labels.max()) + 1,
            schedule=lessons.backbone.schedule,
            settings=self.training,
            device=lessons.device,
        ).state_dict()

    def extra_evaluations(self, step: int, num_steps: int) -> float:
        """A backward pass at a guided step, with the Jacobian; the encoder's passes are not the denoiser's."""
        return 2.0 if self.jacobian and self._guidance(_no_encoder).acts_at(step, num_steps) else 0.0

    def ready(self, backbone: Backbone, materials: Materials) -> Guidance:
        """The guidance with its encoder."""
        if self.weights is not None:
            network = load_encoder(self.network, self.weights, size=self.size).to(materials.device)
            to_images = backbone.to(materials.device).space.to_images
            return self._guidance(lambda states: network(to_images(states)))
        tensors = self.learnt(materials)["classifier"]
        classifier = load_network(tensors, state_shape=backbone.state_shape).to(materials.device)
        return self._guidance(
            lambda states: classifier.features(
                states, torch.zeros(len(states), dtype=torch.int64, device=states.device)
            )
        )

    def _guidance(self, encoder: Encoder) -> JepaGuidance:
        return JepaGuidance(
            encoder=encoder,
            scale=self.scale,
            top=self.top,
            oversampling=self.oversampling,
            iterations=self.iterations,
            interval=self.interval,
            below=self.below,
            scaling=self.scaling,
            jacobian=self.jacobian,
        )


def _no_encoder(states: Tensor) -> Tensor:
    raise AssertionError("settings alone encode nothing")


def top_singular_values(encoder: Encoder, x: Tensor, probes: Tensor, *, top: int, iterations: int) -> Tensor:
    """The largest singular values of an encoder's Jacobian, differentiable in x.

    Args:
        encoder: Images or states (B, C, H, W) -> features (B, D), differentiable.
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
