"""Low-density sampling (Sehwag et al., CVPR 2022): away from the middle of the class, but not off the real images.

Two noise-aware networks look at x_t. The embedding of the first is, class by class, described by a Gaussian; the
*hardness* of a state is its negative log-likelihood under the Gaussian of its class (under the mixture of all classes
where there are no labels). The second tells real images from plain samples. Sampling climbs both:

    x_{t-1} <- x_{t-1} + Sigma_t ( a g_hard / max|g_hard| + b g_real / max|g_real| )
    g_hard = grad hardness(x_t),   g_real = grad log p(real | x_t)

Shapes: N real and M generated images, B samples, C channels, H x W pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from minority.backbones import Backbone
from minority.diffusion.chain import Chain, Estimate
from minority.diffusion.noise import NoiseSource
from minority.guidance import Guidance
from minority.guidance.class_gaussians import ClassGaussians, fit_gaussians
from minority.guidance.gradients import unit_peak
from minority.guidance.materials import Lessons, Materials, Parts, Tensors
from minority.guidance.method import TrainedMethod
from minority.guidance.noise_aware_network import (
    NoiseAwareNetwork,
    NoiseAwareSettings,
    load_network,
    train_on_states,
)

_REAL = 1  # the discriminator's output for real images


@dataclass(frozen=True, kw_only=True, eq=False)
class LowDensity(Guidance):
    """Guides away from the class's middle, and towards what looks real.

    Attributes:
        embedding: Its features are what the Gaussians describe.
        gaussians: Fitted on real images.
        discriminator: Tells real images (output 1) from generated ones (output 0).
        hardness_scale: a.
        realism_scale: b; 0 leaves the discriminator out.
    """

    embedding: NoiseAwareNetwork
    gaussians: ClassGaussians
    discriminator: NoiseAwareNetwork
    hardness_scale: float = 1.0
    realism_scale: float = 0.5

    def __post_init__(self) -> None:
        if not (self.hardness_scale >= 0 and self.realism_scale >= 0):
            raise ValueError(
                "LowDensity.hardness_scale and .realism_scale must not be negative, got "
                f"{self.hardness_scale} and {self.realism_scale}."
            )

    def acts_at(self, step: int, num_steps: int) -> bool:
        """Every step."""
        return True

    def shift(self, estimate: Estimate, chain: Chain, noise: NoiseSource) -> Tensor:
        """The sum of both pushes, (B, C, H, W)."""
        timestep = chain.schedule.timestep(estimate.step, len(estimate.x_t), estimate.x_t.device)
        with torch.enable_grad():
            x_t = estimate.x_t.detach().requires_grad_(True)
            features = self.embedding.features(x_t, timestep)
            label = chain.label if self.gaussians.mean.shape[1] > 1 else None
            hardness = self.gaussians.hardness(features, int(timestep[0]), label)
            (harder,) = torch.autograd.grad(hardness.sum(), x_t)
            push = self.hardness_scale * unit_peak(harder)
            if self.realism_scale > 0:
                real = F.log_softmax(self.discriminator(x_t, timestep), dim=1)[:, _REAL]
                (more_real,) = torch.autograd.grad(real.sum(), x_t)
                push = push + self.realism_scale * unit_peak(more_real)
        return estimate.variance.detach() * push


@dataclass(frozen=True, kw_only=True)
class LowDensitySettings(TrainedMethod):
    """Low-density sampling, with the two networks and the Gaussians that it learns first.

    Attributes:
        hardness_scale: a, at least 0.
        realism_scale: b, at least 0; 0 leaves the discriminator out.
        plain_samples: Plain samples of the backbone that the discriminator learns from, at least 1.
        training: The budget of each network.
    """

    key: ClassVar[str] = "low_density"
    paper: ClassVar[str] = "Sehwag et al., CVPR 2022, arXiv 2203.17260"
    line: ClassVar[str] = "leaves the middle of the class in an embedding, but not the real images; learns from them"
    steering: ClassVar[tuple[str, ...]] = ("hardness_scale", "realism_scale")
    uses_plain_samples: ClassVar[bool] = True

    hardness_scale: float = 1.0
    realism_scale: float = 0.5
    plain_samples: int = 1000
    training: NoiseAwareSettings = field(default_factory=NoiseAwareSettings)

    def __post_init__(self) -> None:
        if not (self.hardness_scale >= 0 and self.realism_scale >= 0):
            raise ValueError(
                "LowDensity.hardness_scale and .realism_scale must not be negative, got "
                f"{self.hardness_scale} and {self.realism_scale}."
            )
        if self.plain_samples < 1:
            raise ValueError(f"LowDensity.plain_samples must be at least 1, got {self.plain_samples}.")

    @classmethod
    def samplers(cls) -> Mapping[str, Self]:
        """Scales that suit the digits."""
        return {"low-density": cls(hardness_scale=1.5, realism_scale=0.5)}

    @property
    def part_names(self) -> tuple[str, ...]:
        """Plain samples, the discriminator of real and plain images, the embedding of the classes, its Gaussians."""
        return ("plain", "discriminator", "embedding", "gaussians")

    def train(self, part: str, lessons: Lessons, done: Parts) -> Tensors:
        """Draw plain samples, train a network, or fit the Gaussians."""
        if part == "plain":
            labels = np.resize(np.random.default_rng(0).permutation(lessons.labels), self.plain_samples)
            return {"images": torch.from_numpy(lessons.draw_plain(labels))}
        schedule, device = lessons.backbone.schedule, lessons.device
        if part == "discriminator":
            plain = lessons.encoded(done["plain"]["images"].numpy())
            both, is_real = torch.cat([plain, lessons.states]), _is_real(len(plain), len(lessons.states))
            return train_on_states(
                both, is_real, num_outputs=2, schedule=schedule, settings=self.training, device=device
            ).state_dict()
        one_class = len(np.unique(lessons.labels)) < 2
        num_classes = 1 if one_class else int(lessons.labels.max()) + 1
        if part == "embedding" and one_class:
            return done["discriminator"]  # no labels to learn: the discriminator's features are the embedding
        if part == "embedding":
            return train_on_states(
                lessons.states,
                lessons.labels,
                num_outputs=num_classes,
                schedule=schedule,
                settings=self.training,
                device=device,
            ).state_dict()
        embedding = load_network(done["embedding"], state_shape=lessons.backbone.state_shape).to(device)
        classes = torch.from_numpy(np.zeros_like(lessons.labels) if one_class else lessons.labels).to(device)
        return fit_gaussians(embedding, schedule, lessons.states.to(device), classes, num_classes=num_classes).tensors()

    def ready(self, backbone: Backbone, materials: Materials) -> Guidance:
        """The guidance with its networks and Gaussians."""
        parts = self.learnt(materials)
        embedding, discriminator = (
            load_network(parts[name], state_shape=backbone.state_shape).to(materials.device)
            for name in ("embedding", "discriminator")
        )
        return LowDensity(
            embedding=embedding,
            gaussians=ClassGaussians(**{name: part.to(materials.device) for name, part in parts["gaussians"].items()}),
            discriminator=discriminator,
            hardness_scale=self.hardness_scale,
            realism_scale=self.realism_scale,
        )


def _is_real(generated: int, real: int) -> NDArray[np.int64]:
    """The discriminator's targets for generated images with real ones behind them."""
    return np.repeat(np.array([1 - _REAL, _REAL], dtype=np.int64), [generated, real])
