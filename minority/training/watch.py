"""Evaluates a backbone while it trains: plain samples, and how far they and held-out images are from one another."""

from dataclasses import dataclass

import numpy as np
import torch
from diffusers import UNet2DModel
from numpy.typing import NDArray

from minority.backbones import Backbone, UNetDenoiser, UNetSettings
from minority.diffusion.schedule import NoiseSchedule
from minority.evaluation.backbone_quality import bound_of, plain_samples
from minority.evaluation.metrics import frechet_distance
from minority.features import Extractor
from minority.runtime.image_arrays import Images

UInt8 = NDArray[np.uint8]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class WatchSettings:
    """How a backbone is evaluated while it trains. Costs time, changes no weight.

    Attributes:
        every: Steps between two evaluations, at least 1; there is one after the last step too.
        samples: Plain samples an evaluation, at least 2.
        sampling_steps: Steps of the chain that draws them, at least 1.
        held_out: Held-out images that they are compared with, at most; at least 2.
        bits_images: Held-out images whose bits/dim are computed, at most; at least 1.
        bits_steps: Steps of that chain, at least 1.
    """

    every: int = 1000
    samples: int = 200
    sampling_steps: int = 25
    held_out: int = 1000
    bits_images: int = 50
    bits_steps: int = 25

    def __post_init__(self) -> None:
        for name in ("every", "samples", "sampling_steps", "held_out", "bits_images", "bits_steps"):
            least = 2 if name in ("samples", "held_out") else 1
            if getattr(self, name) < least:
                raise ValueError(f"WatchSettings.{name} must be at least {least}, got {getattr(self, name)}.")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was seen.

    Attributes:
        samples: (N, H, W, C) uint8 plain samples, the same noise at every evaluation.
        labels: (N,) their classes; None where the backbone is unconditional.
        bits_per_dim: Mean negative ELBO of held-out images.
        frechet_distance: Of the samples to held-out images.
    """

    samples: UInt8
    labels: Int64 | None
    bits_per_dim: float
    frechet_distance: float


class Watch:
    """Evaluates a network again and again, at the same images and with the same noise.

    Args:
        held_out: (M, H, W, C) uint8 images that are not trained on, M >= 2.
        labels: (M,) their classes.
        extract: Where sets are compared.
        schedule: The full chain.
        unet: What must be known to use the network.
        settings: How much of it.
        device: Where to compute.
    """

    def __init__(
        self,
        held_out: Images,
        labels: Int64,
        *,
        extract: Extractor,
        schedule: NoiseSchedule,
        unet: UNetSettings,
        settings: WatchSettings,
        device: torch.device | str = "cpu",
    ) -> None:
        chosen = np.random.default_rng(0).permutation(len(held_out))[: settings.held_out]
        self._held_out, self._labels = held_out[chosen], labels[chosen]
        self._extract, self._features = extract, extract(self._held_out)
        self._schedule, self._unet, self._settings, self._device = schedule, unet, settings, device

    def evaluate(self, network: UNet2DModel) -> Evaluation:
        """Evaluate a network; it stays as it is."""
        denoiser = UNetDenoiser(network, self._schedule, settings=self._unet)
        backbone = Backbone(
            name="in training",
            denoiser=denoiser,
            schedule=self._schedule,
            image_shape=denoiser.state_shape,
            num_classes=self._unet.num_classes,
            sha256="",
        )
        settings, some = self._settings, slice(self._settings.bits_images)
        labels = None if backbone.num_classes is None else np.resize(self._labels, settings.samples)
        samples = plain_samples(
            backbone, labels, count=settings.samples, steps=settings.sampling_steps, seed=0, device=self._device
        )
        bound = bound_of(
            backbone,
            self._held_out[some],
            self._labels[some],
            steps=settings.bits_steps,
            seed=0,
            device=self._device,
        )
        return Evaluation(
            samples, labels, float(bound.mean()), frechet_distance(self._features, self._extract(samples))
        )
