"""Training a small text-to-image model: the autoencoder on images, then U-Net and text encoder on latents and captions.

Every draw is a function of (seed, step), so a killed run goes on from its last checkpoint to the same weights.

Shapes: B images a batch, C channels, H x W pixels; images are in [-1, 1].
"""

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn
from torch.nn import functional

from minority.runtime.image_arrays import Images, content_key
from minority.training.augmentation import AffineAugmentation
from minority.training.averages import WeightAverage, exponential
from minority.training.checkpoint import read_checkpoint, write_checkpoint
from minority.training.loop import PROGRESS_REPORTS, Progress
from minority.training.text.networks import NOISE, Parts
from minority.training.text.settings import TextModelSettings

OnProgress = Callable[[str, Progress], None]
_MOVED = AffineAugmentation(rotation=8.0, translation=0.04, scaling=0.08, shear=0.06)
_STATISTICS = 2048  # images whose latents say how they are scaled


@dataclass(frozen=True, eq=False)
class CaptionedImages:
    """What is learned from.

    Attributes:
        images: (N, H, W, 3) uint8: an array, or images that are read where they are indexed.
        captions: For each image, one or several; a step takes one of them by chance.
    """

    images: Images
    captions: Sequence[Sequence[str]]

    def __post_init__(self) -> None:
        if not len(self.images) or len(self.images) != len(self.captions) or not all(map(len, self.captions)):
            raise ValueError(f"{len(self.images)} images need one caption each at least, got {len(self.captions)}.")


def train_text_model(
    parts: Parts,
    data: CaptionedImages,
    *,
    settings: TextModelSettings,
    folder: Path,
    on_progress: OnProgress | None = None,
    device: torch.device | str = "cpu",
) -> Parts:
    """Train all parts in place and return them in eval mode on the CPU, with averaged weights.

    Args:
        parts: With their initial weights.
        data: Images with captions.
        settings: See `TextModelSettings`.
        folder: Receives a checkpoint of each training, from which a killed run goes on.
        on_progress: Called with "autoencoder" or "captions" and where that training stands.
        device: Where to train.

    Raises:
        ValueError: The checkpoint belongs to another run, a caption is too long, or the loss stops being finite.
    """
    device = torch.device(device)
    _train(_Autoencoding(parts, data, settings, device), settings.autoencoder_steps, settings, folder, on_progress)
    _scale(parts.autoencoder, data, device)
    _train(_Captions(parts, data, settings, device), settings.steps, settings, folder, on_progress)
    for part in (parts.autoencoder, parts.unet, parts.text_encoder):
        part.cpu().eval().requires_grad_(False)
    return parts


class _Autoencoding:
    """Rebuilding images: mean absolute and squared error, and the divergence of latents, lightly."""

    name = "autoencoder"

    def __init__(self, parts: Parts, data: CaptionedImages, settings: TextModelSettings, device: torch.device) -> None:
        self.network: nn.Module = parts.autoencoder.to(device).train()
        self._autoencoder, self._data, self._settings, self._device = parts.autoencoder, data, settings, device

    def rate(self, step: int) -> float:
        return _cosine(step, self._settings.autoencoder_steps, self._settings.warmup)

    def loss(self, generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(self._data.images), (self._settings.batch_size,), generator=generator)
        images = _moved(self._data.images, chosen, generator).to(self._device)
        latents = self._autoencoder.encode(images).latent_dist
        drawn = latents.mean + latents.std * torch.randn(latents.mean.shape, generator=generator).to(self._device)
        error = self._autoencoder.decode(drawn).sample - images
        return error.abs().mean() + error.square().mean() + self._settings.divergence_weight * latents.kl().mean()


class _Captions:
    """Predicting the noise of latents from captions."""

    name = "captions"

    def __init__(self, parts: Parts, data: CaptionedImages, settings: TextModelSettings, device: torch.device) -> None:
        parts.autoencoder.to(device).eval().requires_grad_(False)
        self.network: nn.Module = parts.prompted().to(device).train()
        self._parts, self._data, self._settings, self._device = parts, data, settings, device
        self._noise: Any = DDPMScheduler(**NOISE)
        texts = sorted({text for texts in data.captions for text in texts} | {""})
        self._rows = {text: row for row, text in enumerate(texts)}
        self._ids = _ids_of(parts.tokenizer, texts).to(device)

    def rate(self, step: int) -> float:
        settings = self._settings
        left = (settings.steps - step) / max(1, settings.cooldown)
        return _cosine(step, settings.horizon or settings.steps, settings.warmup) * min(1.0, left)

    def loss(self, generator: torch.Generator) -> Tensor:
        settings, size = self._settings, self._settings.batch_size
        chosen = torch.randint(len(self._data.images), (size,), generator=generator)
        images = _moved(self._data.images, chosen, generator).to(self._device)
        which = torch.rand(size, generator=generator)
        empty = torch.rand(size, generator=generator) < settings.caption_dropout
        captions = [self._data.captions[int(index)] for index in chosen]
        texts = [texts[int(share * len(texts))] for texts, share in zip(captions, which.tolist(), strict=True)]
        rows = [self._rows["" if left_out else text] for text, left_out in zip(texts, empty.tolist(), strict=True)]
        with torch.no_grad():
            latents = self._parts.autoencoder.encode(images).latent_dist.mode()
            latents = latents * self._parts.autoencoder.config.scaling_factor
        eps = torch.randn(latents.shape, generator=generator).to(self._device)
        timesteps = torch.randint(self._noise.config.num_train_timesteps, (size,), generator=generator)
        timesteps = timesteps.to(self._device)
        states = self._parts.text_encoder(self._ids[rows]).last_hidden_state
        noisy = self._noise.add_noise(latents, eps, timesteps)
        return functional.mse_loss(self._parts.unet(noisy, timesteps, encoder_hidden_states=states).sample, eps)


def _train(
    task: _Autoencoding | _Captions,
    steps: int,
    settings: TextModelSettings,
    folder: Path,
    on_progress: OnProgress | None,
) -> None:
    path = folder / f"{task.name}.pt"
    parameters = [parameter for parameter in task.network.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=1e-4)
    average = WeightAverage(task.network, exponential(settings.ema_decay))
    identity = _identity(task, settings)
    first = 0
    if path.exists():
        state = read_checkpoint(path, identity=identity)
        task.network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        average.restore(state["average"])
        first = int(state["step"])
    started, window = time.monotonic(), [0.0, 0.0]
    for step in range(first, steps):
        generator = torch.Generator().manual_seed(hash_of(settings.seed, task.name, step))
        loss = task.loss(generator)
        if not torch.isfinite(loss):
            raise ValueError(f"the loss of the {task.name} is {float(loss)} at step {step}; lower learning_rate.")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * task.rate(step)
        optimiser.step()
        average.update(step, task.network.state_dict())
        window = [window[0] + float(loss.detach()), window[1] + 1]
        done = step + 1
        if on_progress is not None and (done % max(1, steps // PROGRESS_REPORTS) == 0 or done == steps):
            left = (time.monotonic() - started) / (done - first) * (steps - done)
            on_progress(task.name, Progress(done, steps, window[0] / window[1], seconds_left=left))
            window = [0.0, 0.0]
        if done % settings.checkpoint_every == 0 or done == steps:
            state = {"network": task.network.state_dict(), "optimiser": optimiser.state_dict()}
            write_checkpoint(path, state | {"average": average.weights, "step": done, "identity": identity})
    task.network.load_state_dict(average.weights)


def hash_of(*parts: object) -> int:
    """A seed of 63 bits that all parts decide."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


def _cosine(step: int, steps: int, warmup: int) -> float:
    return min(1.0, (step + 1) / max(1, warmup)) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))


def _identity(task: _Autoencoding | _Captions, settings: TextModelSettings) -> str:
    data = task._data
    digest = hashlib.sha256(repr((settings, task.name, data.images.shape, list(map(tuple, data.captions)))).encode())
    digest.update(content_key(data.images))
    return digest.hexdigest()


def _moved(images: Images, chosen: Tensor, generator: torch.Generator) -> Tensor:
    """(B, 3, H, W) images, each moved a little."""
    batch = torch.from_numpy(images[chosen.numpy()]).permute(0, 3, 1, 2).float() / 127.5 - 1
    return _MOVED(batch, generator)


@torch.no_grad()
def _scale(autoencoder: Any, data: CaptionedImages, device: torch.device) -> None:
    """Scale latents to unit variance over some of the images."""
    autoencoder.to(device).eval()
    every = max(1, len(data.images) // _STATISTICS)
    images = torch.from_numpy(data.images[::every]).permute(0, 3, 1, 2).float() / 127.5 - 1
    latents = torch.cat([autoencoder.encode(part.to(device)).latent_dist.mode() for part in images.split(256)])
    autoencoder.register_to_config(scaling_factor=float(1 / latents.std()))


def _ids_of(tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """(R, L) token numbers, filled up to the tokenizer's length."""
    length = int(tokenizer.model_max_length)
    for text in texts:
        if (count := len(tokenizer(text, truncation=False).input_ids)) > length:
            raise ValueError(f"the caption {text!r:.80} has {count} tokens, text_length takes {length}; shorten it.")
    ids = tokenizer(list(texts), padding="max_length", max_length=length, return_tensors="pt").input_ids
    return torch.as_tensor(ids)
