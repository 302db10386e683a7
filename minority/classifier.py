"""The classifiers inside the pipeline: small CNNs that recognise groups, evaluate candidates, and give features.

What images are worth to a training job is measured by others, in minority/downstream. All randomness of a training
(start weights, draws, augmentation) follows from its seed.

Shapes: N images, H x W pixels, C channels (1 or 3), K classes; images come in as uint8 (N, H, W, C).
"""

import math
import threading
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from minority.runtime.interruption import stop_if_interrupted
from minority.runtime.progress import counted

UInt8 = NDArray[np.uint8]
Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

_seeding = threading.Lock()

PREDICT_BATCH = 512  # images a forward pass; changes memory, not results


@dataclass(frozen=True, kw_only=True)
class ClassifierSettings:
    """How a classifier is trained.

    The defaults were chosen by cross-validation inside the long-tailed training split of the 8x8 digits; no synthetic
    image and no test figure took part.

    Attributes:
        steps: Optimiser steps, >= 1.
        batch_size: Images a step, >= 2, drawn with replacement.
        learning_rate: Peak of the one-cycle schedule (Smith & Topin 2018), reached after a tenth of the steps; > 0.
        weight_decay: Decoupled weight decay (AdamW), >= 0.
        width: Channels of the first stage, >= 1; they double with every halving of the image, at most eightfold.
        label_smoothing: Share of the target spread over all classes, in [0, 1).
        max_shift: Largest random shift along each axis, as a fraction of the side, in [0, 1).
        max_rotation: Largest random rotation in degrees, in [0, 180].
        flip: Mirror half of the images left to right. Right for faces and rooms, wrong for digits.
    """

    steps: int = 300
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.3
    width: int = 32
    label_smoothing: float = 0.0
    max_shift: float = 0.06
    max_rotation: float = 10.0
    flip: bool = False

    def __post_init__(self) -> None:
        rules = {
            "steps": (self.steps >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 2, "at least 2"),
            "learning_rate": (self.learning_rate > 0, "above 0"),
            "weight_decay": (self.weight_decay >= 0, "at least 0"),
            "width": (self.width >= 1, "at least 1"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "in [0, 1)"),
            "max_shift": (0 <= self.max_shift < 1, "in [0, 1)"),
            "max_rotation": (0 <= self.max_rotation <= 180, "in [0, 180] degrees"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise ValueError(f"ClassifierSettings.{name} must be {rule}, got {getattr(self, name)}.")


class SmallCNN(nn.Module):
    """Stages of two 3x3 convolutions, each stage at half the size of the one before, then the mean over pixels.

    The number of stages follows the image: the last one works at 4 to 7 pixels a side, so 8x8 gets two stages, 32x32
    four and 64x64 five. Batch normalisation (Ioffe & Szegedy 2015): in eval mode the output for an image does not
    depend on the others of its batch.

    Args:
        image_size: (H, W), each at least 4 pixels.
        num_channels: 1 or 3.
        num_classes: K, at least 2.
        width: Channels of the first stage, at least 1.
    """

    def __init__(self, image_size: tuple[int, int], *, num_channels: int, num_classes: int, width: int) -> None:
        super().__init__()
        if min(image_size) < 4 or num_channels not in (1, 3) or num_classes < 2:
            raise ValueError(
                f"the classifier needs images of at least 4x4 pixels, 1 or 3 channels and at least 2 classes, got "
                f"{image_size[0]}x{image_size[1]} pixels, {num_channels} channels and {num_classes} classes."
            )
        self.image_shape = (num_channels, *image_size)
        num_stages = int(math.log2(min(image_size) / 4)) + 1
        layers: list[nn.Module] = []
        channels = num_channels
        for stage in range(num_stages):
            out = width * min(2**stage, 8)
            layers += [nn.MaxPool2d(2)] if stage > 0 else []
            layers += [*_convolution(channels, out), *_convolution(out, out)]
            channels = out
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of float images (N, C, H, W) in [-1, 1]."""
        features: Tensor = self.features(images)  # (N, channels, h, w)
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits


def train_classifier(
    images: UInt8,
    labels: Int64,
    *,
    num_classes: int,
    settings: ClassifierSettings,
    seed: int,
    sampling_weights: Float64 | None = None,
    offsets: Float64 | None = None,
    device: torch.device | str = "cpu",
) -> SmallCNN:
    """Train one classifier from scratch.

    On the CPU the result is a function of the arguments and the number of threads; torch's global random state is
    neither read nor changed.

    Args:
        images: (N, H, W, C) uint8.
        labels: (N,) integers in [0, num_classes).
        num_classes: K.
        settings: The budget.
        seed: Decides start weights, draws and augmentation.
        sampling_weights: (N,) odds of drawing each image, >= 0, in any unit. None = all alike.
        offsets: (N, K) finite numbers added to each image's logits in the loss alone, as logit adjustment does (Menon
            et al. 2021): a very negative one takes a class out of the comparison. None = none.
        device: Where to train.

    Returns:
        The network in eval mode, on `device`.

    Raises:
        ValueError: Where images, labels or weights do not fit one another.
    """
    _check_training_set(images, labels, num_classes=num_classes, sampling_weights=sampling_weights)
    model = _initial_model(images, num_classes=num_classes, width=settings.width, seed=seed).to(device)
    generator = torch.Generator().manual_seed(seed)
    weights = torch.ones(len(images)) if sampling_weights is None else torch.as_tensor(sampling_weights)
    draws = torch.multinomial(
        weights.double(), settings.steps * settings.batch_size, replacement=True, generator=generator
    ).view(settings.steps, settings.batch_size)

    pixels = torch.tensor(images)  # stays uint8 and on the host; only batches travel
    targets = torch.tensor(labels, dtype=torch.int64)
    shifts = None if offsets is None else torch.tensor(offsets, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    # One step more than is taken, so that every step taken has a rate above the schedule's floor.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.steps + 1, pct_start=0.1
    )
    model.train()
    with counted("training a classifier", unit="steps") as count:
        for step, draw in enumerate(draws):
            stop_if_interrupted()
            batch = _augmented(_to_unit_range(pixels[draw]), settings=settings, generator=generator)
            logits = model(batch.to(device))
            if shifts is not None:
                logits = logits + shifts[draw].to(device)
            loss = F.cross_entropy(logits, targets[draw].to(device), label_smoothing=settings.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            count(step + 1, settings.steps)
    return model.eval()


@torch.no_grad()
def predict(model: SmallCNN, images: UInt8) -> Float64:
    """Class probabilities.

    Args:
        model: A trained classifier, on any device.
        images: (N, H, W, C) uint8 of the shape it was trained on.

    Returns:
        (N, K) float64; rows sum to 1.

    Raises:
        ValueError: Where the images are not uint8 or have another shape than the model's.
    """
    channels, height, width = model.image_shape
    if images.dtype != np.uint8 or images.shape[1:] != (height, width, channels):
        raise ValueError(
            f"images must be uint8 (N, {height}, {width}, {channels}), as the classifier was trained on, got "
            f"{images.dtype} {images.shape}."
        )
    device = next(model.parameters()).device
    model.eval()
    probabilities = [
        model(_to_unit_range(torch.tensor(images[start : start + PREDICT_BATCH])).to(device)).double().softmax(1).cpu()
        for start in range(0, len(images), PREDICT_BATCH)
    ]
    return torch.cat(probabilities).numpy() if probabilities else np.empty((0, model.head.out_features))


def _convolution(channels: int, out: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]


def _initial_model(images: UInt8, *, num_classes: int, width: int, seed: int) -> SmallCNN:
    _, height, image_width, channels = images.shape
    # The random state that is borrowed here is the process's: threads that train side by side take turns.
    with _seeding, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also reseed the GPUs
        return SmallCNN((height, image_width), num_channels=channels, num_classes=num_classes, width=width)


def _to_unit_range(pixels: Tensor) -> Tensor:
    """Turn uint8 (N, H, W, C) into float (N, C, H, W) in [-1, 1]."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def _augmented(images: Tensor, *, settings: ClassifierSettings, generator: torch.Generator) -> Tensor:
    """Shift, rotate and mirror every image of (B, C, H, W) by its own draw; edges are continued outwards."""
    if settings.max_shift == 0 and settings.max_rotation == 0 and not settings.flip:
        return images
    _, _, height, width = images.shape
    angle_draw, shift_x, shift_y, mirror = torch.rand((4, len(images)), generator=generator)  # (B,) each, in [0, 1)
    angle = (2 * angle_draw - 1) * math.radians(settings.max_rotation)
    sign = torch.where(mirror < 0.5, -1.0, 1.0) if settings.flip else torch.ones(len(images))
    cosine, sine, aspect = angle.cos(), angle.sin(), height / width
    # The grid's coordinates run from -1 to 1 over either side, hence the factor 2 and the aspect ratio.
    row_x = torch.stack([sign * cosine, -sign * sine * aspect, 2 * settings.max_shift * (2 * shift_x - 1)], dim=1)
    row_y = torch.stack([sine / aspect, cosine, 2 * settings.max_shift * (2 * shift_y - 1)], dim=1)
    theta = torch.stack([row_x, row_y], dim=1)  # (B, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _check_training_set(images: UInt8, labels: Int64, *, num_classes: int, sampling_weights: Float64 | None) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) == 0:
        raise ValueError(f"images must be uint8 (N, H, W, C) with N at least 1, got {images.dtype} {images.shape}.")
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be {len(images)} integers, one an image, got {labels.dtype} {labels.shape}.")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"labels must lie in [0, {num_classes}), got {labels.min()} ... {labels.max()}.")
    if sampling_weights is None:
        return
    if sampling_weights.shape != (len(images),):
        raise ValueError(f"sampling_weights must be {len(images)}, one an image, got {sampling_weights.shape}.")
    if not np.isfinite(sampling_weights).all() or sampling_weights.min() < 0 or sampling_weights.sum() <= 0:
        raise ValueError("sampling_weights must be finite, at least 0, and not all 0.")


def balancing_odds(groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Odds (N,) that draw every group equally often, for the (N,) groups; they sum to 1.

    Example:
        >>> balancing_odds(np.array([0, 0, 0, 1])).round(3).tolist()
        [0.167, 0.167, 0.167, 0.5]
    """
    _, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    odds: NDArray[np.float64] = 1.0 / (counts[inverse] * len(counts))
    return odds
