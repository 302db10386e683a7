"""The training set and what is drawn from it each step.

Shapes: N training images, B of them a step, C channels, H x W pixels; images are uint8 outside, in [-1, 1] inside.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minority.backbones.factors import Factors
from minority.training.settings import TrainingSettings


class TrainingData:
    """The training set on the host; only batches travel.

    Args:
        images: (N, H, W, C) uint8.
        labels: (N,) classes, or None.
        settings: How batches are drawn.
        no_label: The label that stands for none, where labels are left out.
        shown: Whether the network sees the labels; where not, they only balance the classes.
        factors: The conditions whose rows the labels are, where there are several.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64] | None,
        settings: TrainingSettings,
        *,
        no_label: int | None,
        shown: bool,
        factors: Factors | None = None,
    ) -> None:
        self.pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
        self.labels = torch.from_numpy(np.asarray(labels, dtype=np.int64)) if shown and labels is not None else None
        self.weights = drawing_weights(labels, class_balance=settings.class_balance, count=len(images))
        self.settings = settings
        self.no_label, self.factors = no_label, factors

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Images (B, C, H, W) and their labels (B,)."""
        chosen = torch.multinomial(self.weights, self.settings.batch_size, replacement=True, generator=generator)
        batch = self.pixels[chosen].float().div(127.5).sub(1)
        if self.settings.augmentation is not None:
            batch = self.settings.augmentation(batch, generator)
        return batch, None if self.labels is None else self.labels[chosen]

    def leave_out(self, label: Tensor | None, generator: torch.Generator) -> Tensor | None:
        """The labels (B,), some of them replaced by the one that stands for none."""
        if label is None or self.no_label is None:
            return label
        dropped = torch.rand(label.shape, generator=generator) < self.settings.label_dropout
        if self.factors is not None:
            shares = torch.tensor(self.settings.condition_dropout).expand(len(self.factors.names))
            left_out = torch.rand((len(shares), len(label)), generator=generator) < shares[:, None]
            return self.factors.without(label, left_out | dropped)
        return torch.where(dropped, self.no_label, label)


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


def check_data(images: NDArray[np.uint8], labels: NDArray[np.int64] | None) -> None:
    """Refuse images and labels that cannot be trained on.

    Raises:
        ValueError: What is wrong with them.
    """
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
