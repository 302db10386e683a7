"""Low-density sampling (Sehwag et al., CVPR 2022): away from the middle of the class, but not off the real images.

Two noise-aware networks look at x_t. The embedding of the first is, class by class, described by a Gaussian; the
*hardness* of a state is its negative log-likelihood under the Gaussian of its class (under the mixture of all classes
where there are no labels). The second tells real images from plain samples. Sampling climbs both:

    x_{t-1} <- x_{t-1} + Sigma_t ( a g_hard / max|g_hard| + b g_real / max|g_real| )
    g_hard = grad hardness(x_t),   g_real = grad log p(real | x_t)

The Gaussians are fitted to embeddings of real images noised to a few levels, and the nearest level is used, so that
they fit the embeddings that they judge.

Shapes: N real and M generated images, B samples, C channels, H x W pixels, K classes, L noise levels, D features.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from minority.diffusion.chain import Chain, Estimate
from minority.diffusion.noise import NoiseSource
from minority.diffusion.pixels import from_pixels
from minority.diffusion.schedule import NoiseSchedule
from minority.guidance import Guidance
from minority.guidance.gradients import unit_peak
from minority.guidance.noise_aware_network import NoiseAwareNetwork, NoiseAwareSettings, train_noise_aware

_REAL = 1  # the discriminator's output for real images


@dataclass(frozen=True, eq=False)
class ClassGaussians:
    """Where the embeddings of each class lie, noise level by noise level.

    Attributes:
        timesteps: (L,) int64 the trained timesteps that they were fitted at.
        mean: (L, K, D).
        precision: (L, K, D, D) inverse covariances.
        log_determinant: (L, K) of the covariances.
    """

    timesteps: Tensor
    mean: Tensor
    precision: Tensor
    log_determinant: Tensor

    def hardness(self, features: Tensor, timestep: int, label: Tensor | None) -> Tensor:
        """Negative log-likelihood without its constant, (B,); larger = farther from the class.

        Args:
            features: (B, D).
            timestep: The trained timestep of the state.
            label: (B,) classes; None for the mixture of all, every class alike.
        """
        level = int((self.timesteps - timestep).abs().argmin())
        off = features[:, None] - self.mean[level]  # (B, K, D)
        distance = torch.einsum("bkd,kde,bke->bk", off, self.precision[level], off)
        hardness = 0.5 * (distance + self.log_determinant[level])
        if label is None:
            return -torch.logsumexp(-hardness, dim=1)
        return hardness.gather(1, label[:, None])[:, 0]


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


def fit_gaussians(
    embedding: NoiseAwareNetwork,
    schedule: NoiseSchedule,
    images: Tensor,
    classes: Tensor,
    *,
    num_classes: int,
    levels: int = 10,
    shrinkage: float = 0.1,
    seed: int = 0,
) -> ClassGaussians:
    """Describe the embeddings of real images.

    Args:
        embedding: The network.
        schedule: Its trained noise levels.
        images: (N, C, H, W) in [-1, 1].
        classes: (N,) int64.
        num_classes: K; classes without images get the Gaussian of all.
        levels: L noise levels, evenly spaced over the chain.
        shrinkage: Share of each covariance that is replaced by a round one of the same trace, in (0, 1], plus as much
            of the covariance of all classes where a class has fewer images than features.
        seed: Decides the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    steps = torch.linspace(0, schedule.num_steps - 1, levels).round().long().tolist()
    means, covariances = [], []
    for step in steps:
        eps = torch.randn(images.shape, generator=generator).to(images)
        with torch.no_grad():
            features = embedding.features(
                schedule.noised(images, step, eps), schedule.timestep(step, len(images), images.device)
            ).double()
        pairs = [_moments(features, classes == c, shrinkage=shrinkage) for c in range(num_classes)]
        means.append(torch.stack([mean for mean, _ in pairs]))
        covariances.append(torch.stack([covariance for _, covariance in pairs]))
    covariance = torch.stack(covariances)
    return ClassGaussians(
        timesteps=torch.from_numpy(schedule.timesteps[steps]).to(images.device),
        mean=torch.stack(means).float(),
        precision=torch.linalg.inv(covariance).float(),
        log_determinant=torch.linalg.slogdet(covariance).logabsdet.float(),
    )


def _moments(features: Tensor, chosen: Tensor, *, shrinkage: float) -> tuple[Tensor, Tensor]:
    own = features[chosen] if bool(chosen.any()) else features
    off = own - own.mean(dim=0)
    covariance = off.T @ off / max(1, len(own) - 1)
    if len(own) <= features.shape[1]:
        everyone = features - features.mean(dim=0)
        covariance = 0.5 * covariance + 0.5 * everyone.T @ everyone / max(1, len(features) - 1)
    size = len(covariance)
    scale = covariance.trace() / size + 1e-6
    round_one = scale * torch.eye(size, dtype=covariance.dtype, device=covariance.device)
    return own.mean(dim=0), (1 - shrinkage) * covariance + shrinkage * round_one


def train_low_density(
    images: NDArray[np.uint8],
    generated: NDArray[np.uint8],
    *,
    schedule: NoiseSchedule,
    labels: NDArray[np.int64] | None = None,
    hardness_scale: float = 1.0,
    realism_scale: float = 0.5,
    settings: NoiseAwareSettings | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> LowDensity:
    """Train both networks and fit the Gaussians.

    Args:
        images: (N, H, W, C) uint8 real training images.
        generated: (M, H, W, C) uint8 plain samples of the backbone.
        schedule: All trained noise levels of the backbone.
        labels: (N,) classes; without them the discriminator's own features are the embedding, of one class.
        hardness_scale: a.
        realism_scale: b.
        settings: The budget of each network.
        seed: Decides the trainings.
        device: Where to compute.
    """
    settings = settings or NoiseAwareSettings()
    both = np.concatenate([generated, images])
    is_real = np.repeat(np.array([1 - _REAL, _REAL], dtype=np.int64), [len(generated), len(images)])
    discriminator = train_noise_aware(
        both, is_real, num_outputs=2, schedule=schedule, settings=settings, seed=seed, device=device
    )
    embedding, num_classes, classes = discriminator, 1, np.zeros(len(images), dtype=np.int64)
    if labels is not None:
        num_classes, classes = max(2, int(labels.max()) + 1), labels.astype(np.int64)
        embedding = train_noise_aware(
            images, classes, num_outputs=num_classes, schedule=schedule, settings=settings, seed=seed, device=device
        )
    gaussians = fit_gaussians(
        embedding,
        schedule,
        from_pixels(images).to(device),
        torch.from_numpy(classes).to(device),
        num_classes=num_classes,
        seed=seed,
    )
    return LowDensity(
        embedding=embedding,
        gaussians=gaussians,
        discriminator=discriminator,
        hardness_scale=hardness_scale,
        realism_scale=realism_scale,
    )
