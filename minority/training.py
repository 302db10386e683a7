"""Training a backbone: the simple noise-prediction loss, an average of the weights, and a loop that can be killed.

Every random draw of a training step is a function of (seed, step), so a run that is killed and resumed from its last
checkpoint ends in the same weights as one that never stopped (bit for bit on one device type and thread count).

Shapes: B samples, C channels, H x W pixels; images are in [-1, 1].
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from minority.augmentation import AffineAugmentation
from minority.schedule import NoiseSchedule


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a backbone is trained.

    Attributes:
        steps: Optimiser steps.
        batch_size: Images a step.
        learning_rate: Peak rate of AdamW; warmed up over the first `warmup` steps, then falling to 0 by a cosine.
        warmup: Steps of linear warm-up.
        weight_decay: Decoupled weight decay.
        ema_decay: Decay of the averaged weights, which are the ones that are kept.
        class_balance: 0 draws images as they are, 1 draws classes equally often; between, the weight of an image of
            class c is count_c ** -class_balance.
        gradient_clip: Largest gradient norm.
        augmentation: Mild affine changes, or None.
        seed: Decides initial weights, batches, noise and dropout.
        checkpoint_every: Steps between checkpoints.
    """

    steps: int = 2000
    batch_size: int = 128
    learning_rate: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.01
    ema_decay: float = 0.995
    class_balance: float = 0.5
    gradient_clip: float = 1.0
    augmentation: AffineAugmentation | None = field(default_factory=AffineAugmentation)
    seed: int = 0
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"TrainingSettings.{name} must be at least 1, got {getattr(self, name)}.")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"TrainingSettings.ema_decay must lie in [0, 1), got {self.ema_decay}.")


@dataclass(frozen=True)
class Progress:
    """Where a training run stands: steps done, steps in total, mean loss since the last report."""

    step: int
    steps: int
    loss: float


def train_denoiser(
    network: nn.Module,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64] | None,
    *,
    schedule: NoiseSchedule,
    settings: TrainingSettings,
    checkpoint: Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """Train a noise predictor in place and return it with its averaged weights.

    Args:
        network: A diffusers UNet2DModel; predicts the noise, (B, C, H, W).
        images: (N, H, W, C) uint8 training images.
        labels: (N,) int64, or None for an unconditional backbone.
        schedule: The full chain to train on.
        settings: See above.
        checkpoint: File that receives the state now and then, and from which a killed run goes on. None: no resuming.
        on_progress: Called at each checkpoint and about a hundred times in between.
        device: Where to train.

    Raises:
        ValueError: Where there are no images, or the checkpoint belongs to another run.
    """
    if len(images) == 0:
        raise ValueError("there are no images to train on.")
    run = _Run(network.to(device), settings)
    first = run.load(checkpoint) if checkpoint is not None and checkpoint.exists() else 0
    data = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    weights = _class_weights(labels, settings.class_balance, len(images))
    report_every = max(1, settings.steps // 100)
    losses: list[float] = []
    for step in range(first, settings.steps):
        batch, label, generator = _draw_batch(data, labels, weights, settings, step)
        losses.append(run.step(step, batch.to(device), label, generator, schedule))
        done = step + 1
        if done % report_every == 0 and on_progress is not None:
            on_progress(Progress(step=done, steps=settings.steps, loss=float(np.mean(losses))))
            losses.clear()
        if checkpoint is not None and (done % settings.checkpoint_every == 0 or done == settings.steps):
            run.save(checkpoint, done)
    network.load_state_dict(run.average)
    return network.eval()


class _Run:
    """The network, its optimiser and its averaged weights."""

    def __init__(self, network: nn.Module, settings: TrainingSettings) -> None:
        self.network = network.train()
        self.settings = settings
        self.average = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.optimiser = torch.optim.AdamW(
            network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.rate = torch.optim.lr_scheduler.LambdaLR(self.optimiser, self._rate)

    def _rate(self, step: int) -> float:
        warm = min(1.0, (step + 1) / max(1, self.settings.warmup))
        return warm * 0.5 * (1 + float(np.cos(np.pi * min(1.0, step / self.settings.steps))))

    def step(
        self, step: int, x_0: Tensor, label: Tensor | None, generator: torch.Generator, schedule: NoiseSchedule
    ) -> float:
        eps = torch.randn(x_0.shape, generator=generator).to(x_0.device)
        t = torch.randint(schedule.num_steps, (len(x_0),), generator=generator)
        abar = torch.from_numpy(schedule.abar).float()[t].to(x_0.device)[:, None, None, None]
        x_t = abar.sqrt() * x_0 + (1 - abar).sqrt() * eps
        timestep = torch.from_numpy(schedule.timesteps)[t].to(x_0.device)
        with torch.random.fork_rng():
            torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))  # dropout
            predicted = self.network(x_t, timestep, class_labels=None if label is None else label.to(x_0.device)).sample
        loss = (predicted - eps).square().mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.gradient_clip)
        self.optimiser.step()
        self.rate.step()
        # Early averages would remember the initial weights for long; the decay grows into its final value.
        decay = min(self.settings.ema_decay, (step + 1) / (step + 10))
        for name, value in self.network.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)
        return loss.item()

    def save(self, path: Path, step: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        torch.save(
            {
                "step": step,
                "settings": repr(self.settings),
                "network": self.network.state_dict(),
                "average": self.average,
                "optimiser": self.optimiser.state_dict(),
                "rate": self.rate.state_dict(),
            },
            temporary,
        )
        temporary.replace(path)

    def load(self, path: Path) -> int:
        state = torch.load(path, weights_only=True, map_location="cpu")
        if state["settings"] != repr(self.settings):
            raise ValueError(f"{path} belongs to a training run with other settings; remove it or restore them.")
        self.network.load_state_dict(state["network"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.rate.load_state_dict(state["rate"])
        return int(state["step"])


def _class_weights(labels: NDArray[np.int64] | None, class_balance: float, count: int) -> Tensor:
    if labels is None:
        return torch.ones(count)
    counts = np.bincount(labels)
    return torch.from_numpy(counts[labels].astype(np.float64) ** -class_balance)


def _draw_batch(
    data: Tensor, labels: NDArray[np.int64] | None, weights: Tensor, settings: TrainingSettings, step: int
) -> tuple[Tensor, Tensor | None, torch.Generator]:
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence([settings.seed, step]).generate_state(1)[0]))
    chosen = torch.multinomial(weights, settings.batch_size, replacement=True, generator=generator)
    batch = data[chosen]
    if settings.augmentation is not None:
        batch = settings.augmentation(batch, generator)
    return batch, None if labels is None else torch.from_numpy(labels)[chosen], generator
