"""Self-guidance towards rare images (Um & Ye, ECCV 2024, arXiv 2407.11555), with and without the Jacobian.

Each guided step climbs the minority metric L (minority/diffusion/minority_metric.py) of its state:

    x_{t-1} <- x_{t-1} + w * Sigma_t * g / max|g|,   g = dL / dx_t

The published method differentiates through the denoiser. Without the Jacobian, g is taken at the clean estimate
instead, g = dL / dx0_hat: the direction in which the image itself leaves its own reconstruction. That needs no
backward pass through the network and keeps no activations.

Shapes: B samples, C channels, H x W pixels; images are in [-1, 1].
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from minority.backbones import Backbone
from minority.diffusion.chain import Chain, Estimate
from minority.diffusion.minority_metric import Distance, renoise_and_denoise
from minority.diffusion.noise import NoiseSource
from minority.diffusion.space import PIXELS
from minority.guidance.distances import DistanceName, distance_by_name
from minority.guidance.gradients import finite, refusal_where_offloaded, through_denoiser, unit_peak
from minority.guidance.method import Method


@dataclass(frozen=True, kw_only=True)
class SelfGuidance(Method):
    """Pushes each guided step uphill on the minority metric.

    Attributes:
        scale: Guidance scale w. With scaling "variance" in multiples of the step's variance. Published: 0.4 for
            CelebA-64; the best value differs from backbone to backbone.
        perturbation: Perturbation step s as a fraction of the chain, [0, 1).
        interval: Guidance interval n: steps whose index is a multiple of it are guided.
        above: Guide only steps above this fraction of the chain (towards noise); -1 guides to the very end.
        draws: How many noises the metric is averaged over.
        distance: "l2" (the norm with power `norm`, not squared), "squared" (sum of squared errors), "lpips", or
            "features" (Euclidean, in the space of an encoder).
        norm: The p of the norm for "l2"; 2 is the Euclidean one.
        network: For "lpips" alex, vgg or squeeze; for "features" a classifier of torchvision, such as resnet18.
        weights: The path of that network's weights; None looks for those of "lpips" in torch's own cache.
        scaling: "variance" multiplies the push by the step's variance, "fixed" does not.
        normalise: Divide each sample's gradient by its largest absolute value. A flat metric gives no push.
        clip_x0: Clip the clean estimates inside the metric to where clean states lie (images: [-1, 1]).
        space: Compare "state"s of the chain, or the "image"s that they stand for: for latent backbones, where decoding
            costs a pass of the autoencoder's decoder for each estimate, and one back. The same where states are images.
        jacobian: Differentiate through the denoiser (as published), or take the gradient at x0_hat.
    """

    key: ClassVar[str] = "self_guidance"
    paper: ClassVar[str] = "Um & Ye, ECCV 2024, arXiv 2407.11555"
    line: ClassVar[str] = "climbs the minority metric, with or without the denoiser's Jacobian"
    grids = (
        {
            "scale": (0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0),
            "perturbation": (0.35, 0.5, 0.65, 0.8),
            "interval": (2, 5),
            "above": (-1.0, 0.3),
            "jacobian": (False,),
        },
        {
            "scale": (0.4, 1.0, 4.0),
            "perturbation": (0.35, 0.5, 0.65, 0.8),
            "interval": (2,),
            "above": (-1.0,),
            "jacobian": (True,),
        },
    )
    shown_when_absent: ClassVar[bool] = True

    scale: float
    perturbation: float = 0.8
    interval: int = 5
    above: float = -1.0
    draws: int = 1
    distance: DistanceName = "l2"
    norm: float = 2.0
    network: str = "alex"
    weights: str | None = None
    scaling: Literal["variance", "fixed"] = "variance"
    normalise: bool = True
    clip_x0: bool = False
    space: Literal["state", "image"] = "state"
    jacobian: bool = True

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise ValueError(f"SelfGuidance.interval must be at least 1 step, got {self.interval}.")
        if not 0 <= self.perturbation < 1:
            raise ValueError(f"SelfGuidance.perturbation must lie in [0, 1), got {self.perturbation}.")
        if self.draws < 1:
            raise ValueError(f"SelfGuidance.draws must be at least 1, got {self.draws}.")
        if not self.scale >= 0:
            raise ValueError(f"SelfGuidance.scale must not be negative, got {self.scale}.")
        if not self.norm >= 1:
            raise ValueError(f"SelfGuidance.norm must be at least 1, got {self.norm}.")
        if self.space not in ("state", "image"):
            raise ValueError(f"SelfGuidance.space must be state or image, got {self.space!r}.")

    @classmethod
    def samplers(cls) -> Mapping[str, Self]:
        """The paper's scale for CelebA-64, and the ones that suit the digits."""
        return {
            "sgms-published": cls(scale=0.4),
            "sgms": cls(scale=3.0, perturbation=0.5),
            "jacobian-free": cls(scale=3.0, perturbation=0.5, jacobian=False),
        }

    @classmethod
    def published(cls) -> Self | None:
        """The paper's, for CelebA-64."""
        return cls(scale=0.4, interval=5, perturbation=0.8)

    def refusal(self, backbone: Backbone) -> str | None:
        """Needs what it differentiates to stay on the device."""
        return refusal_where_offloaded(backbone, network=self.jacobian, decoder=self.space == "image")

    def describe(self) -> str:
        """The settings that a calibration searches."""
        kind = "w/ Jacobian" if self.jacobian else "no Jacobian"
        until = "" if self.above < 0 else f" above {self.above:g}"
        return f"w {self.scale:g} s {self.perturbation:g} n {self.interval}{until}, {kind}"

    def extra_evaluations(self, step: int, num_steps: int) -> float:
        """At a guided step one prediction a draw, and a backward pass with the Jacobian."""
        return self.draws + 2.0 * self.jacobian if self.acts_at(step, num_steps) else 0.0

    @property
    def needs_gradient(self) -> bool:
        """True where the metric is differentiated through the denoiser."""
        return self.jacobian

    def acts_at(self, step: int, num_steps: int) -> bool:
        """Every `interval`-th step above the fraction `above` of the chain."""
        return step % self.interval == 0 and step > self.above * num_steps

    def shift(self, estimate: Estimate, chain: Chain, noise: NoiseSource) -> Tensor:
        """The push uphill, (B, C, H, W), detached."""
        with torch.enable_grad():
            x0_hat = estimate.x0_hat.detach().requires_grad_(True)
            metric = self._metric(x0_hat, estimate.step, chain, noise)
            # Samples do not interact, so the gradient of the sum is each sample's own gradient.
            (gradient,) = torch.autograd.grad(metric.sum(), x0_hat)
        gradient = through_denoiser(gradient, estimate, chain) if self.jacobian else finite(gradient)
        push = self.scale * (unit_peak(gradient) if self.normalise else gradient)
        return push * estimate.variance.detach() if self.scaling == "variance" else push

    def _metric(self, x0_hat: Tensor, step: int, chain: Chain, noise: NoiseSource) -> Tensor:
        x0_hat = chain.space.clipped(x0_hat) if self.clip_x0 else x0_hat
        s = chain.schedule.step_at(self.perturbation)
        distance = self.distance_function(x0_hat.device)
        view = (chain.space if self.space == "image" else PIXELS).to_images
        seen, distances = view(x0_hat), []
        for draw in range(self.draws):
            again = renoise_and_denoise(chain, x0_hat, s, noise.perturbation(step, draw), clip=self.clip_x0)
            distances.append(distance(seen, view(again)))
        return torch.stack(distances).mean(dim=0)

    def distance_function(self, device: torch.device) -> Distance:
        """The metric's d, two (B, C, H, W) -> (B,); override for one of your own."""
        return distance_by_name(
            self.distance, norm=self.norm, network=self.network, weights=self.weights, device=device
        )
