"""Where the embeddings of each class lie: a Gaussian a class and noise level, for low-density sampling.

They are fitted to embeddings of real images noised to a few levels, and the nearest level is used, so that they fit
the embeddings that they evaluate.

Shapes: N real images, B samples, C channels, H x W pixels, K classes, L noise levels, D features.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from minority.diffusion.schedule import NoiseSchedule
from minority.guidance.noise_aware_network import NoiseAwareNetwork


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

    def tensors(self) -> dict[str, Tensor]:
        """All of it, by the attributes' names."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

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
    members = features[chosen] if bool(chosen.any()) else features
    off = members - members.mean(dim=0)
    covariance = off.T @ off / max(1, len(members) - 1)
    if len(members) <= features.shape[1]:
        everyone = features - features.mean(dim=0)
        covariance = 0.5 * covariance + 0.5 * everyone.T @ everyone / max(1, len(features) - 1)
    size = len(covariance)
    scale = covariance.trace() / size + 1e-6
    round_one = scale * torch.eye(size, dtype=covariance.dtype, device=covariance.device)
    return members.mean(dim=0), (1 - shrinkage) * covariance + shrinkage * round_one
