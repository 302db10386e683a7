"""A small network that reads noisy images, and its training: the classifiers that some guidance methods need.

It sees x_t and the timestep and gives features and logits. Every random draw of a training follows from its seed.

Shapes: N training images, B samples, C channels, H x W pixels, D features, K outputs; images are in [-1, 1].
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from minority.diffusion.schedule import NoiseSchedule


@dataclass(frozen=True, kw_only=True)
class NoiseAwareSettings:
    """How such a network is built and trained.

    Attributes:
        width: Channels of the first stage, a multiple of 8; doubled with every halving of the image.
        steps: Optimiser steps, at least 1.
        batch_size: Images a step, drawn with replacement; at least 1.
        learning_rate: Of AdamW, above 0, falling to 0 by a cosine.
        weight_decay: At least 0.
    """

    width: int = 32
    steps: int = 1000
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.05

    def __post_init__(self) -> None:
        if self.width < 8 or self.width % 8:
            raise ValueError(f"NoiseAwareSettings.width must be a multiple of 8, got {self.width}.")
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"NoiseAwareSettings.{name} must be at least 1, got {getattr(self, name)}.")
        if not self.learning_rate > 0 or not self.weight_decay >= 0:
            raise ValueError(
                "NoiseAwareSettings.learning_rate must be positive and .weight_decay not negative, got "
                f"{self.learning_rate} and {self.weight_decay}."
            )


class NoiseAwareNetwork(nn.Module):
    """Residual stages, each modulated by the timestep, then the mean over pixels.

    Args:
        image_shape: (C, H, W).
        num_outputs: K.
        width: Channels of the first stage, a multiple of 8.
    """

    def __init__(self, image_shape: tuple[int, int, int], *, num_outputs: int, width: int) -> None:
        super().__init__()
        channels, height, side = image_shape
        self.width = width
        self.enter = nn.Conv2d(channels, width, 3, padding=1)
        widths = [
            width * min(2**stage, 4) for stage in range(max(1, int(math.log2(max(4, min(height, side)) / 4)) + 1))
        ]
        self.stages = nn.ModuleList(
            _Stage(before, after, time=4 * width) for before, after in zip([width, *widths], widths, strict=False)
        )
        self.time = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width))
        self.num_features = widths[-1]
        self.head = nn.Linear(self.num_features, num_outputs)

    def features(self, x_t: Tensor, timestep: Tensor) -> Tensor:
        """(B, D) features of (B, C, H, W) noisy images at (B,) trained timesteps."""
        half = self.width // 2
        frequencies = torch.exp(-math.log(10000) * torch.arange(half, device=x_t.device) / half)
        angles = timestep.float()[:, None] * frequencies[None]
        time = self.time(torch.cat([angles.sin(), angles.cos()], dim=1))  # (B, 4 width)
        hidden: Tensor = self.enter(x_t)
        for i, stage in enumerate(self.stages):
            hidden = stage(F.avg_pool2d(hidden, 2) if i > 0 else hidden, time)
        return hidden.mean(dim=(2, 3))

    def forward(self, x_t: Tensor, timestep: Tensor) -> Tensor:
        """(B, K) logits."""
        logits: Tensor = self.head(self.features(x_t, timestep))
        return logits


class _Stage(nn.Module):
    def __init__(self, before: int, after: int, *, time: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, padding=1)
        self.norm = nn.GroupNorm(8, after)
        self.modulate = nn.Linear(time, 2 * after)
        self.second = nn.Conv2d(after, after, 3, padding=1)
        self.skip = nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.modulate(F.silu(time))[:, :, None, None].chunk(2, dim=1)
        hidden = self.first(x)
        # Without a second pixel there is nothing to normalise over but the channels' own signal.
        normed = self.norm(hidden) if hidden.shape[-1] * hidden.shape[-2] > 1 else hidden
        out: Tensor = self.skip(x) + self.second(F.silu(normed * (1 + scale) + shift))
        return out


def load_network(tensors: Mapping[str, Tensor], *, state_shape: tuple[int, int, int]) -> NoiseAwareNetwork:
    """A trained network from its state dict.

    Args:
        tensors: As `NoiseAwareNetwork.state_dict` gives them.
        state_shape: (C, H, W) of the states that it reads.

    Returns:
        The network in eval mode on the CPU, its parameters without gradients.
    """
    width, num_outputs = len(tensors["enter.bias"]), len(tensors["head.bias"])
    with torch.random.fork_rng(devices=[]):
        network = NoiseAwareNetwork(state_shape, num_outputs=num_outputs, width=width)
    network.load_state_dict(dict(tensors))
    return network.eval().requires_grad_(False)


def train_on_states(
    x_0: Tensor,
    targets: NDArray[np.int64],
    *,
    num_outputs: int,
    schedule: NoiseSchedule,
    settings: NoiseAwareSettings,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> NoiseAwareNetwork:
    """Train a classifier of noisy states, all noise levels alike.

    Args:
        x_0: (N, C, H, W) clean states of the backbone that will be guided, on the CPU.
        targets: (N,) integers in [0, num_outputs).
        num_outputs: K, at least 2.
        schedule: All trained noise levels of that backbone.
        settings: The budget.
        seed: Decides start weights, batches and noise; torch's global random state is left alone.
        device: Where to train.

    Returns:
        The network in eval mode, its parameters without gradients.

    Raises:
        ValueError: Where states and targets do not fit one another.
    """
    if len(x_0) == 0 or len(x_0) != len(targets):
        raise ValueError(f"every image needs one target, got {len(x_0)} images and {len(targets)} targets.")
    if num_outputs < 2 or targets.min() < 0 or targets.max() >= num_outputs:
        raise ValueError(
            f"targets must lie in 0 ... {num_outputs - 1} with at least 2 outputs, got {targets.min()} ... "
            f"{targets.max()}."
        )
    wanted = torch.from_numpy(np.ascontiguousarray(targets))
    shape: tuple[int, int, int] = (x_0.shape[1], x_0.shape[2], x_0.shape[3])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = NoiseAwareNetwork(shape, num_outputs=num_outputs, width=settings.width).to(device)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    abar = torch.from_numpy(schedule.abar)
    for _ in range(settings.steps):
        chosen = torch.randint(len(x_0), (settings.batch_size,), generator=generator)
        step = torch.randint(schedule.num_steps, (settings.batch_size,), generator=generator)
        eps = torch.randn((settings.batch_size, *shape), generator=generator)
        signal = abar[step].view(-1, 1, 1, 1)
        x_t = (signal.sqrt().float() * x_0[chosen] + (1 - signal).sqrt().float() * eps).to(device)
        timestep = torch.from_numpy(schedule.timesteps)[step].to(device)
        loss = F.cross_entropy(network(x_t, timestep), wanted[chosen].to(device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        decay.step()
    return network.eval().requires_grad_(False)
