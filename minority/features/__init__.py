"""Feature extractors by settings: where images are compared."""

import re
from dataclasses import dataclass, field
from typing import Literal

import torch

from minority.backbones import Backbone
from minority.classifier import ClassifierSettings, Int64
from minority.features.bottleneck import bottleneck_extractor
from minority.features.dinov2 import dinov2_extractor
from minority.features.extractor import Extractor, Float32, NetworkExtractor, UInt8
from minority.features.inception import inception_extractor
from minority.features.pixels import Pixels
from minority.features.torchvision_model import torchvision_extractor
from minority.features.trained_classifier import classifier_extractor
from minority.runtime.image_arrays import Images

ExtractorKind = Literal["pixels", "backbone", "classifier", "torchvision", "inception", "dinov2"]


@dataclass(frozen=True, kw_only=True)
class ExtractorSettings:
    """Where images are compared.

    Attributes:
        kind: "pixels" for tiny aligned images; "backbone" for the diffusion model's own bottleneck, which needs nothing
            else; "classifier" for one trained on the real training split; "torchvision", "inception" (the standard
            FID's) and "dinov2" for networks from weights on disk.
        network: Which one, for "torchvision" (e.g. resnet50) and "dinov2" (e.g. dinov2_vits14).
        weights: Path, name in torch's cache, or URL of the weights, for those two and "inception".
        sha256: Their checksum; a URL needs it.
        source: Who builds "dinov2": the package timm, or a clone of its repository ("hub").
        repository: That clone.
        noise_level: Noise on the images that "backbone" sees, as a fraction of its chain, in [0, 1).
        classifier: Training budget of "classifier".
        batch_size: Images a call. Costs memory; changes features at most in the last bits.
    """

    kind: ExtractorKind = "pixels"
    network: str | None = None
    weights: str | None = None
    sha256: str | None = None
    source: Literal["timm", "hub"] = "timm"
    repository: str | None = None
    noise_level: float = 0.1
    classifier: ClassifierSettings = field(default_factory=ClassifierSettings)
    batch_size: int = 64

    def __post_init__(self) -> None:
        needs = {"network": ("torchvision", "dinov2"), "weights": ("torchvision", "dinov2", "inception")}
        for name, kinds in needs.items():
            if self.kind in kinds and getattr(self, name) is None:
                raise ValueError(f"ExtractorSettings.{name} must be given for {self.kind}, got None.")
        if self.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"ExtractorSettings.sha256 must be 64 hex digits, got {self.sha256!r}.")
        if not 0 <= self.noise_level < 1:
            raise ValueError(f"ExtractorSettings.noise_level must lie in [0, 1), got {self.noise_level}.")
        if self.batch_size < 1:
            raise ValueError(f"ExtractorSettings.batch_size must be at least 1, got {self.batch_size}.")


def build_extractor(
    settings: ExtractorSettings,
    *,
    backbone: Backbone | None = None,
    train_images: Images | None = None,
    train_labels: Int64 | None = None,
    device: torch.device | str = "cpu",
) -> Extractor:
    """Make the extractor that the settings describe.

    Args:
        settings: Which one.
        backbone: Needed for "backbone".
        train_images: (N, H, W, C) uint8 real training images, needed for "classifier".
        train_labels: (N,) their labels.
        device: Where to compute.

    Raises:
        ValueError: Where something that is needed is missing or does not fit (WeightsError for weights).
    """
    if settings.kind == "pixels":
        return Pixels()
    size = settings.batch_size
    if settings.kind == "backbone":
        if backbone is None:
            raise ValueError("the features of kind backbone need a backbone, got None.")
        return bottleneck_extractor(backbone, noise_level=settings.noise_level, batch_size=size, device=device)
    if settings.kind == "classifier":
        if train_images is None or train_labels is None:
            raise ValueError("the features of kind classifier need real training images and their labels, got None.")
        return classifier_extractor(
            train_images, train_labels, settings=settings.classifier, batch_size=size, device=device
        )
    assert settings.weights is not None, "checked by the settings"
    if settings.kind == "inception":
        return inception_extractor(settings.weights, sha256=settings.sha256, batch_size=size, device=device)
    assert settings.network is not None, "checked by the settings"
    if settings.kind == "torchvision":
        return torchvision_extractor(
            settings.network, settings.weights, sha256=settings.sha256, batch_size=size, device=device
        )
    return dinov2_extractor(
        settings.network,
        settings.weights,
        sha256=settings.sha256,
        source=settings.source,
        repository=settings.repository,
        batch_size=size,
        device=device,
    )


__all__ = ["Extractor", "ExtractorSettings", "Float32", "NetworkExtractor", "Pixels", "UInt8", "build_extractor"]
