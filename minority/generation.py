"""Drawing and scoring a batch of samples: what a work unit asks of the device.

Shapes: B samples, C channels, H x W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minority.backbones import Backbone
from minority.chain import Variance
from minority.guidance import Guidance
from minority.guidance.boost_and_skip import BoostAndSkip
from minority.guidance.self_guidance import SelfGuidance
from minority.noise import SampleNoise
from minority.sampler import sample
from minority.score import minority_score, negative_elbo


@dataclass(frozen=True, kw_only=True)
class SamplerSettings:
    """How samples are drawn.

    Attributes:
        steps: Steps of the respaced chain: a number, or sections such as "10,15" or "ddim25".
        variance: Reverse variance (minority/chain.py).
        self_guidance: Climb the minority metric, or None.
        boost_and_skip: Start from boosted noise some steps down, or None.
        batch_size: Samples a network call. Costs memory; changes images at most in the last bit.
    """

    steps: int | str = 50
    variance: Variance = "learned_range"
    self_guidance: SelfGuidance | None = None
    boost_and_skip: BoostAndSkip | None = None
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"SamplerSettings.batch_size must be at least 1, got {self.batch_size}.")

    @property
    def guidance(self) -> list[Guidance]:
        """The methods that steer the chain, possibly none."""
        return [method for method in (self.boost_and_skip, self.self_guidance) if method is not None]

    def plain(self) -> "SamplerSettings":
        """The same chain without guidance: plain ancestral sampling."""
        return replace(self, self_guidance=None, boost_and_skip=None)


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """How finished images are scored.

    Attributes:
        perturbation: Perturbation step of the minority score as a fraction of the chain, in [0, 1).
        draws: Noises that the minority score is averaged over.
        elbo_steps: Steps of the respaced chain whose negative ELBO is computed; each costs one evaluation.
    """

    perturbation: float = 0.5
    draws: int = 4
    elbo_steps: int = 10

    def __post_init__(self) -> None:
        if not 0 <= self.perturbation < 1:
            raise ValueError(f"ScoreSettings.perturbation must lie in [0, 1), got {self.perturbation}.")
        if self.draws < 1 or self.elbo_steps < 1:
            raise ValueError(
                f"ScoreSettings.draws and .elbo_steps must be at least 1, got {self.draws} and {self.elbo_steps}."
            )


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of B images: minority score (squared error, larger = rarer) and negative ELBO in bits/dim, each (B,)."""

    minority_score: NDArray[np.float32]
    negative_elbo: NDArray[np.float32]


def draw_images(
    backbone: Backbone,
    *,
    seed: int,
    indices: Sequence[int],
    labels: Sequence[int] | None,
    settings: SamplerSettings,
    device: torch.device | str = "cpu",
) -> tuple[NDArray[np.uint8], float]:
    """Draw the samples with the given indices.

    Args:
        backbone: On any device.
        seed: The run's seed.
        indices: Sample indices; each decides its own noise.
        labels: One a sample for a class-conditional backbone, None for an unconditional one.
        settings: See above.
        device: Where to compute.

    Returns:
        Images (B, H, W, C) uint8, and denoiser evaluations a sample (a backward pass counts as two).

    Raises:
        ValueError: Where labels do not go with the backbone.
    """
    backbone = backbone.to(device)
    schedule = backbone.schedule.respaced(settings.steps)
    images, evaluations = [], 0.0
    for part, label in _batches(backbone, indices, labels, size=settings.batch_size, device=device):
        noise = SampleNoise(seed, part, shape=backbone.image_shape, device=device)
        x, cost = sample(
            backbone.denoiser,
            schedule,
            noise,
            label=label,
            guidance=settings.guidance,
            variance=settings.variance,
        )
        images.append(to_pixels(x))
        evaluations = cost.evaluations()
    return np.concatenate(images), evaluations


def score_images(
    backbone: Backbone,
    images: NDArray[np.uint8],
    *,
    seed: int,
    indices: Sequence[int],
    labels: Sequence[int] | None,
    settings: ScoreSettings,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
) -> Scores:
    """Score finished images by the backbone.

    Args:
        backbone: On any device.
        images: (B, H, W, C) uint8.
        seed: The run's seed.
        indices: One index an image; each decides its own noise.
        labels: One an image for a class-conditional backbone, None for an unconditional one.
        settings: See above.
        batch_size: Images a network call.
        device: Where to compute.
    """
    backbone = backbone.to(device)
    chain, short = backbone.schedule, backbone.schedule.respaced(settings.elbo_steps)
    x = from_pixels(images)
    minority, elbo = [], []
    position = 0
    for part, label in _batches(backbone, indices, labels, size=batch_size, device=device):
        noise = SampleNoise(seed, part, shape=backbone.image_shape, device=device)
        batch = x[position : position + len(part)].to(device)
        position += len(part)
        minority.append(
            minority_score(
                backbone.denoiser,
                chain,
                batch,
                noise,
                label=label,
                perturbations=(settings.perturbation,),
                draws=settings.draws,
            )
        )
        elbo.append(negative_elbo(backbone.denoiser, short, batch, noise, label=label).total)
    return Scores(minority_score=torch.cat(minority).cpu().numpy(), negative_elbo=torch.cat(elbo).cpu().numpy())


def to_pixels(x: Tensor) -> NDArray[np.uint8]:
    """(B, C, H, W) in [-1, 1] to (B, H, W, C) uint8, rounded to the nearest level."""
    pixels = x.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def from_pixels(images: NDArray[np.uint8]) -> Tensor:
    """(B, H, W, C) uint8 to (B, C, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def _batches(
    backbone: Backbone,
    indices: Sequence[int],
    labels: Sequence[int] | None,
    *,
    size: int,
    device: torch.device | str,
) -> list[tuple[Sequence[int], Tensor | None]]:
    if (labels is None) != (backbone.num_classes is None):
        raise ValueError(
            f"backbone {backbone.name} knows {backbone.num_classes or 'no'} classes; "
            f"{'give a label for every sample' if labels is None else 'it takes no labels'}."
        )
    if labels is not None and len(labels) != len(indices):
        raise ValueError(f"{len(indices)} samples need as many labels, got {len(labels)}.")
    return [
        (
            indices[start : start + size],
            None if labels is None else torch.tensor(labels[start : start + size], dtype=torch.int64, device=device),
        )
        for start in range(0, len(indices), size)
    ]
