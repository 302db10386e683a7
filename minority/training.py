"""Training a backbone: the simple noise-prediction loss, an average of the weights, and a loop that can be killed.

Loss and sampling of timesteps are those of Ho et al. 2020 (algorithm 1, "simple" loss). What is kept is the
exponential moving average of the weights.

Every random draw of a training step is a function of (seed, step), so a run that is killed and resumed from its last
checkpoint ends in the same weights as one that never stopped (bit for bit on one device type and thread count).

Shapes: N training images, B of them a step, C channels, H x W pixels; images are uint8 outside, in [-1, 1] inside.
"""

import hashlib
import math
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from minority.augmentation import AffineAugmentation
from minority.schedule import NoiseSchedule

PROGRESS_REPORTS = 100  # a run calls on_progress about so often


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a backbone is trained.

    Attributes:
        steps: Optimiser steps, at least 1.
        batch_size: Images a step, drawn with replacement; at least 1.
        learning_rate: Peak rate of AdamW, above 0; warmed up over the first `warmup` steps, then falling to 0 by a
            cosine.
        warmup: Steps of linear warm-up, at least 0.
        weight_decay: Decoupled weight decay, at least 0.
        ema_decay: Decay of the averaged weights, which are the ones that are kept; in [0, 1). It grows into this
            value over the first steps, so that the average does not remember the initial weights.
        class_balance: 0 draws images as they are, 1 draws classes equally often; between, the weight of an image of
            class c is count_c ** -class_balance. In [0, 1].
        gradient_clip: Largest gradient norm, above 0.
        augmentation: Mild affine changes, or None.
        seed: Decides batches, augmentation, noise and dropout, at least 0. The initial weights are the caller's.
        checkpoint_every: Steps between checkpoints, at least 1.
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
            _require(self, name, getattr(self, name) >= 1, "be at least 1")
        for name in ("warmup", "weight_decay", "seed"):
            _require(self, name, getattr(self, name) >= 0, "not be negative")
        for name in ("learning_rate", "gradient_clip"):
            _require(self, name, getattr(self, name) > 0, "be positive")
        _require(self, "ema_decay", 0 <= self.ema_decay < 1, "lie in [0, 1)")
        _require(self, "class_balance", 0 <= self.class_balance <= 1, "lie in [0, 1]")


@dataclass(frozen=True)
class Progress:
    """Where a training run stands.

    Attributes:
        step: Steps done.
        steps: Steps in total.
        loss: Mean loss since the last report; about 1 at the start.
        seconds_left: Estimate from the speed of this run, without what a resumed run did before.
    """

    step: int
    steps: int
    loss: float
    seconds_left: float = math.nan


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
    """Train a noise predictor in place and return it in eval mode with its averaged weights.

    Args:
        network: A diffusers UNet2DModel; predicts the noise, (B, C, H, W).
        images: (N, H, W, C) uint8 training images, N >= 1.
        labels: (N,) int64, not negative, or None for an unconditional backbone.
        schedule: The full chain to train on.
        settings: See above.
        checkpoint: File that receives the state every `checkpoint_every` steps and at the end (by one rename), and
            from which a killed run goes on. A finished one makes this call return at once. None: no resuming.
        on_progress: Called about a hundred times and after the last step.
        device: Where to train.

    Raises:
        ValueError: Where there are no images, labels do not fit them, the checkpoint belongs to another run or
            cannot be read, or the loss stops being finite.
    """
    _check_data(images, labels)
    run = _Run(network.to(device), settings, identity=_identity(network, images, labels, schedule, settings))
    first = run.load(checkpoint) if checkpoint is not None and checkpoint.exists() else 0
    data = _Data(images, labels, settings)
    noise = _Noise(schedule, torch.device(device))
    report_every = max(1, settings.steps // PROGRESS_REPORTS)
    losses: list[Tensor] = []
    started = time.monotonic()
    for step in range(first, settings.steps):
        generator = _generator(settings.seed, step)
        batch, label = data.draw(generator)
        losses.append(run.step(step, noise.add(batch, generator), label, generator))
        done = step + 1
        reports = done % report_every == 0 or done == settings.steps
        if reports:
            loss = _finite_mean(losses, step)
            losses.clear()
        if checkpoint is not None and (done % settings.checkpoint_every == 0 or done == settings.steps):
            run.save(checkpoint, done)
        if reports and on_progress is not None:
            left = (time.monotonic() - started) / (done - first) * (settings.steps - done)
            on_progress(Progress(step=done, steps=settings.steps, loss=loss, seconds_left=left))
    network.load_state_dict(run.average)
    return network.eval()


class _Noisy(NamedTuple):
    x_t: Tensor  # (B, C, H, W)
    timestep: Tensor  # (B,)
    eps: Tensor  # (B, C, H, W) the noise that is in x_t


class _Run:
    """The network, its optimiser and its averaged weights."""

    def __init__(self, network: nn.Module, settings: TrainingSettings, *, identity: str) -> None:
        self.network = network.train()
        self.settings = settings
        self.identity = identity
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        self.rate = torch.optim.lr_scheduler.LambdaLR(self.optimiser, self._rate)
        self.average = {name: value.detach().clone() for name, value in network.state_dict().items()}

    def _rate(self, step: int) -> float:
        warm = min(1.0, (step + 1) / max(1, self.settings.warmup))
        return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.settings.steps)))

    def step(self, step: int, noisy: _Noisy, label: Tensor | None, generator: torch.Generator) -> Tensor:
        """One optimiser step; returns the loss, a detached scalar."""
        device = noisy.x_t.device
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))  # dropout
            predicted = self.network(
                noisy.x_t, noisy.timestep, class_labels=None if label is None else label.to(device)
            ).sample
        loss = (predicted - noisy.eps).square().mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.settings.gradient_clip)
        self.optimiser.step()
        self.rate.step()
        self._average(step)
        return loss.detach()

    @torch.no_grad()
    def _average(self, step: int) -> None:
        decay = min(self.settings.ema_decay, (step + 1) / (step + 10))
        current = self.network.state_dict()
        floating = [name for name, value in current.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.average[name] for name in floating], [current[name] for name in floating], 1 - decay)
        for name in current.keys() - set(floating):  # counters are taken as they are
            self.average[name].copy_(current[name])

    def save(self, path: Path, step: int) -> None:
        """Replace the checkpoint by one rename; a death in between leaves the old one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.tmp")
        torch.save(
            {
                "step": step,
                "identity": self.identity,
                "network": self.network.state_dict(),
                "average": self.average,
                "optimiser": self.optimiser.state_dict(),
                "rate": self.rate.state_dict(),
            },
            temporary,
        )
        temporary.replace(path)

    def load(self, path: Path) -> int:
        """Take over a checkpoint; returns the steps that it has done."""
        try:
            state = torch.load(path, weights_only=True, map_location="cpu")
            identity = state["identity"]
        except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is not a readable training checkpoint; remove it to train from the start."
            ) from error
        if identity != self.identity:
            raise ValueError(
                f"{path} belongs to a training run with other settings, images, labels, schedule or network; remove "
                f"it to train from the start, or restore what made it."
            )
        self.network.load_state_dict(state["network"])
        for name, value in state["average"].items():
            self.average[name].copy_(value)
        self.optimiser.load_state_dict(state["optimiser"])
        self.rate.load_state_dict(state["rate"])
        return int(state["step"])


class _Data:
    """The training set as tensors on the host; only batches travel."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64] | None, settings: TrainingSettings) -> None:
        self.pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div(127.5).sub(1)
        self.labels = None if labels is None else torch.from_numpy(np.asarray(labels, dtype=np.int64))
        self.weights = drawing_weights(labels, class_balance=settings.class_balance, count=len(images))
        self.settings = settings

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Images (B, C, H, W) and their labels (B,)."""
        chosen = torch.multinomial(self.weights, self.settings.batch_size, replacement=True, generator=generator)
        batch = self.pixels[chosen]
        if self.settings.augmentation is not None:
            batch = self.settings.augmentation(batch, generator)
        return batch, None if self.labels is None else self.labels[chosen]


class _Noise:
    """Noises batches to uniformly drawn steps."""

    def __init__(self, schedule: NoiseSchedule, device: torch.device) -> None:
        self.abar = torch.from_numpy(schedule.abar).float()
        self.timesteps = torch.from_numpy(schedule.timesteps)
        self.device = device

    def add(self, x_0: Tensor, generator: torch.Generator) -> _Noisy:
        eps = torch.randn(x_0.shape, generator=generator)
        t = torch.randint(len(self.abar), (len(x_0),), generator=generator)
        abar = self.abar[t][:, None, None, None]
        x_t = abar.sqrt() * x_0 + (1 - abar).sqrt() * eps
        return _Noisy(x_t.to(self.device), self.timesteps[t].to(self.device), eps.to(self.device))


def drawing_weights(labels: NDArray[np.int64] | None, *, class_balance: float, count: int) -> Tensor:
    """Odds (N,) float64 of drawing each training image: count_c ** -class_balance for an image of class c.

    Args:
        labels: (N,) classes, or None: all images alike.
        class_balance: In [0, 1]; see `TrainingSettings`.
        count: N.
    """
    if labels is None:
        return torch.ones(count, dtype=torch.float64)
    counts = np.bincount(labels)
    return torch.from_numpy(counts[labels].astype(np.float64) ** -class_balance)


def _generator(seed: int, step: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1)[0]))


def _finite_mean(losses: list[Tensor], step: int) -> float:
    loss = float(torch.stack(losses).mean())
    if not math.isfinite(loss):
        raise ValueError(f"the training loss was {loss} around step {step}; lower TrainingSettings.learning_rate.")
    return loss


def _identity(
    network: nn.Module,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64] | None,
    schedule: NoiseSchedule,
    settings: TrainingSettings,
) -> str:
    """A hash over all that a resumed run must share with the one that began; the initial weights are left out."""
    digest = hashlib.sha256(repr(settings).encode())
    digest.update(repr([(name, tuple(value.shape)) for name, value in network.state_dict().items()]).encode())
    for array in (images, labels, schedule.abar, schedule.timesteps):
        digest.update(b"none" if array is None else f"{array.dtype}{array.shape}".encode())
        digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _check_data(images: NDArray[np.uint8], labels: NDArray[np.int64] | None) -> None:
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(f"training images must be uint8 (N, H, W, C), got {images.dtype} {images.shape}.")
    if len(images) == 0:
        raise ValueError("there are no images to train on.")
    if labels is None:
        return
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"training labels must be {len(images)} integers, got {labels.dtype} {labels.shape}.")
    if labels.min() < 0:
        raise ValueError(f"training labels must not be negative, got {labels.min()}.")


def _require(settings: TrainingSettings, name: str, holds: bool, rule: str) -> None:
    if not holds:
        raise ValueError(f"TrainingSettings.{name} must {rule}, got {getattr(settings, name)}.")
