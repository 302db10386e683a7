"""Minority guidance (Um, Lee & Ye, ICLR 2024): a classifier of noisy images knows how rare an image is becoming.

The real images are scored by the minority score and sorted into as many levels of equal size; a noise-aware classifier
learns to tell the level from x_t; sampling then climbs its log-probability of a chosen level, by default the rarest:

    x_{t-1} <- x_{t-1} + w Sigma_t grad log p(level | x_t)

Shapes: N real images, B samples, C channels, H x W pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from minority.backbones import Backbone
from minority.diffusion.chain import Chain, Estimate
from minority.diffusion.denoiser import Denoiser
from minority.diffusion.minority_metric import Distance, squared_error
from minority.diffusion.noise import NoiseSource, SampleNoise
from minority.diffusion.schedule import NoiseSchedule
from minority.diffusion.score import minority_score
from minority.guidance import Guidance
from minority.guidance.gradients import finite
from minority.guidance.materials import Lessons, Materials, Parts, Tensors
from minority.guidance.method import TrainedMethod
from minority.guidance.noise_aware_network import (
    NoiseAwareNetwork,
    NoiseAwareSettings,
    load_network,
    train_on_states,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class MinorityGuidance(Guidance):
    """Guides towards one level of rarity.

    Attributes:
        classifier: Knows the level of a noisy image.
        level: The level wanted; -1 is the rarest.
        scale: w.
    """

    classifier: NoiseAwareNetwork
    level: int = -1
    scale: float = 1.0

    def __post_init__(self) -> None:
        levels = self.classifier.head.out_features
        if not -levels <= self.level < levels:
            raise ValueError(f"MinorityGuidance.level must be one of {levels} levels, got {self.level}.")
        if not self.scale >= 0:
            raise ValueError(f"MinorityGuidance.scale must not be negative, got {self.scale}.")

    def acts_at(self, step: int, num_steps: int) -> bool:
        """Every step."""
        return True

    def shift(self, estimate: Estimate, chain: Chain, noise: NoiseSource) -> Tensor:
        """The push towards the level, (B, C, H, W)."""
        with torch.enable_grad():
            x_t = estimate.x_t.detach().requires_grad_(True)
            timestep = chain.schedule.timestep(estimate.step, len(x_t), x_t.device)
            log_probability = F.log_softmax(self.classifier(x_t, timestep), dim=1)[:, self.level]
            (gradient,) = torch.autograd.grad(log_probability.sum(), x_t)
        return self.scale * estimate.variance.detach() * finite(gradient)


@dataclass(frozen=True, kw_only=True)
class MinorityGuidanceSettings(TrainedMethod):
    """Minority guidance, with the classifier that it learns first.

    Attributes:
        level: The level of rarity wanted; -1 is the rarest.
        scale: w, at least 0.
        levels: Levels of rarity, at least 2; published: 100.
        perturbation: Perturbation step of the score as a fraction of the chain, in [0, 1); published: 0.6.
        draws: Noises that the score of an image is averaged over, at least 1; published: 5.
        training: The classifier's budget.
    """

    key: ClassVar[str] = "minority_guidance"
    paper: ClassVar[str] = "Um, Lee & Ye, ICLR 2024, arXiv 2301.12334"
    line: ClassVar[str] = "climbs a noise-aware classifier's probability of the rarest images; learns from real images"
    steering: ClassVar[tuple[str, ...]] = ("level", "scale")

    level: int = -1
    scale: float = 1.0
    levels: int = 10
    perturbation: float = 0.6
    draws: int = 5
    training: NoiseAwareSettings = field(default_factory=NoiseAwareSettings)

    def __post_init__(self) -> None:
        name = type(self).__name__.removesuffix("Settings")
        if self.levels < 2 or self.draws < 1:
            raise ValueError(
                f"{name}.levels must be at least 2 and .draws at least 1, got {self.levels} and {self.draws}."
            )
        if not -self.levels <= self.level < self.levels:
            raise ValueError(f"{name}.level must be one of {self.levels} levels, got {self.level}.")
        if not self.scale >= 0:
            raise ValueError(f"{name}.scale must not be negative, got {self.scale}.")
        if not 0 <= self.perturbation < 1:
            raise ValueError(f"{name}.perturbation must lie in [0, 1), got {self.perturbation}.")

    @classmethod
    def samplers(cls) -> Mapping[str, Self]:
        """A scale that suits the digits."""
        return {"minority-guidance": cls(scale=3.0)}

    @property
    def part_names(self) -> tuple[str, ...]:
        """The scores of the real images, and the classifier of their levels."""
        return ("scores", "classifier")

    def train(self, part: str, lessons: Lessons, done: Parts) -> Tensors:
        """Score the real images, or train the classifier."""
        backbone, condition = lessons.backbone, lessons.condition
        if part == "scores":
            scores = rarity_scores(
                backbone.denoiser,
                backbone.schedule,
                lessons.states,
                labels=None if condition is None else condition.tolist(),
                perturbation=self.perturbation,
                draws=self.draws,
                batch_size=lessons.batch_size,
                device=lessons.device,
            )
            return {"scores": torch.from_numpy(scores)}
        return train_on_states(
            lessons.states,
            rarity_levels(done["scores"]["scores"].numpy(), levels=self.levels),
            num_outputs=self.levels,
            schedule=backbone.schedule,
            settings=self.training,
            device=lessons.device,
        ).state_dict()

    def ready(self, backbone: Backbone, materials: Materials) -> Guidance:
        """The guidance with its classifier."""
        tensors = self.learnt(materials)["classifier"]
        classifier = load_network(tensors, state_shape=backbone.state_shape).to(materials.device)
        return MinorityGuidance(classifier=classifier, level=self.level, scale=self.scale)


def rarity_levels(scores: NDArray[np.floating], *, levels: int) -> NDArray[np.int64]:
    """Sort scores into levels of equal size, (N,) in 0 ... levels - 1, the rarest last.

    Args:
        scores: (N,) larger = rarer.
        levels: How many, 2 ... N.

    Raises:
        ValueError: Where there are fewer scores than levels.
    """
    if not 2 <= levels <= len(scores):
        raise ValueError(f"levels must lie in 2 ... {len(scores)}, the number of scored images, got {levels}.")
    edges = np.quantile(scores, np.arange(1, levels) / levels)
    return np.searchsorted(edges, scores, side="left").astype(np.int64)


def rarity_scores(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    states: Tensor,
    *,
    labels: Sequence[int] | None,
    perturbation: float,
    draws: int,
    distance: Distance = squared_error,
    seed: int = 0,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
) -> NDArray[np.float32]:
    """Minority scores of real images.

    Args:
        denoiser: The backbone's denoiser, on `device`.
        schedule: All its trained noise levels.
        states: (N, C, H, W) clean states, on the CPU.
        labels: (N,) for a class-conditional backbone, else None.
        perturbation: Perturbation step of the score as a fraction of the chain, in [0, 1).
        draws: Noises a score.
        distance: Of the score; published: LPIPS.
        seed: Decides the noise.
        batch_size: Images a network call.
        device: Where to compute.

    Returns:
        (N,) larger = rarer.
    """
    scores = []
    for start in range(0, len(states), batch_size):
        part = states[start : start + batch_size].to(device)
        label = None if labels is None else torch.tensor(labels[start : start + batch_size], device=device)
        noise = SampleNoise(seed, range(start, start + len(part)), shape=_shape(part), device=device)
        scores.append(
            minority_score(
                denoiser,
                schedule,
                part,
                noise,
                label=label,
                perturbations=(perturbation,),
                draws=draws,
                distance=distance,
            ).cpu()
        )
    rarity: NDArray[np.float32] = torch.cat(scores).float().numpy()
    return rarity


def _shape(images: Tensor) -> tuple[int, int, int]:
    _, channels, height, width = images.shape
    return channels, height, width
