"""Features of a classifier trained on the real training split: they tell apart what the labels tell apart."""

import hashlib

import torch
from torch import Tensor, nn

from minority.classifier import ClassifierSettings, Int64, SmallCNN, UInt8, train_classifier
from minority.diffusion.pixels import from_pixels
from minority.features.extractor import NetworkExtractor
from minority.runtime.progress import called


class Trunk(nn.Module):
    """A classifier without its last layer: (B, C, H, W) in [-1, 1] -> (B, D)."""

    def __init__(self, classifier: SmallCNN) -> None:
        super().__init__()
        self.features = classifier.features

    def forward(self, images: Tensor) -> Tensor:
        """Mean over pixels of the last feature maps."""
        maps: Tensor = self.features(images)
        return maps.mean(dim=(2, 3))


def classifier_extractor(
    images: UInt8,
    labels: Int64,
    *,
    settings: ClassifierSettings | None = None,
    seed: int = 0,
    batch_size: int = 512,
    device: torch.device | str = "cpu",
) -> NetworkExtractor:
    """Train a small CNN on the real training split and take its last feature maps.

    Args:
        images: (N, H, W, C) uint8 real training images.
        labels: (N,) integers from 0.
        settings: The budget; None takes the defaults.
        seed: Decides the training.
        batch_size: Images a call.
        device: Where to compute.
    """
    settings = settings or ClassifierSettings()
    with called("training the classifier of the features"):
        model = train_classifier(
            images, labels, num_classes=int(labels.max()) + 1, settings=settings, seed=seed, device=device
        )
    digest = hashlib.sha256(repr((settings, seed, images.shape)).encode())
    digest.update(images.tobytes())
    digest.update(labels.tobytes())
    return NetworkExtractor(
        Trunk(model),
        from_pixels,
        recipe=f"classifier-{digest.hexdigest()[:16]}",
        batch_size=batch_size,
        device=device,
        maps=model.features,
    )
