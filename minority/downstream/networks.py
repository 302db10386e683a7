"""Classifiers for arms, each a trunk (images to features) and a linear head (features to logits).

Shapes: B images, C channels, H x W pixels, D features, K classes; images are floats in [-1, 1].
"""

import threading
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minority.classifier import SmallCNN
from minority.downstream.settings import NetworkSettings
from minority.weights import read_tensors

_seeding = threading.Lock()

# Published weights of ResNets and ViTs expect images normalised by ImageNet's mean and deviation.
_IMAGENET_MEAN, _IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Classifier(nn.Module):
    """A trunk and a head.

    Args:
        trunk: (B, C, H, W) -> (B, D).
        num_features: D.
        num_classes: K.
    """

    def __init__(self, trunk: nn.Module, *, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(num_features, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K)."""
        logits: Tensor = self.head(self.trunk(images))
        return logits


def build_network(
    settings: NetworkSettings, *, image_shape: tuple[int, int, int], num_classes: int, seed: int
) -> Classifier:
    """Make a classifier with fresh weights, or pretrained ones from a local file.

    Args:
        settings: Which one.
        image_shape: (H, W, C) of the images, C = 1 or 3.
        num_classes: K, at least 2.
        seed: Decides fresh weights; torch's global random state is neither read nor changed.

    Raises:
        ValueError: Images too small, or weights that are missing, torn, of another network, or could run code.
    """
    height, width, channels = image_shape
    if channels not in (1, 3) or num_classes < 2:
        raise ValueError(f"classifiers take 1 or 3 channels and at least 2 classes, got {channels} and {num_classes}.")
    size = (height, width) if settings.input_size is None else (settings.input_size, settings.input_size)
    # The random state that is borrowed here is the process's: threads that train side by side take turns.
    with _seeding, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if settings.kind == "small-cnn":
            trunk, num_features = _small_cnn(size, channels=channels, width=settings.width)
        elif settings.kind in ("resnet18", "resnet50"):
            trunk, num_features = _resnet(settings, size=size)
        else:
            trunk, num_features = _vit(settings, size=size)
        layers = [] if size == (height, width) else [_Resize(size)]
        return Classifier(nn.Sequential(*layers, trunk), num_features=num_features, num_classes=num_classes)


def with_new_head(trunk: nn.Module, *, num_features: int, num_classes: int, seed: int) -> Classifier:
    """A trunk that is there already, all of it to be trained on, and a head with fresh weights.

    Args:
        trunk: (B, C, H, W) in [-1, 1] -> (B, num_features).
        num_features: D.
        num_classes: K.
        seed: Decides the head; torch's global random state is neither read nor changed.
    """
    with _seeding, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = Classifier(trunk, num_features=num_features, num_classes=num_classes)
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    return network


class _Resize(nn.Module):
    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        return F.interpolate(images, size=self.size, mode="bilinear", antialias=True, align_corners=False)


class _Normalised(nn.Module):
    """A network of colour images for grey or colour ones in [-1, 1]."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(_IMAGENET_DEVIATION).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        colour = images.expand(-1, 3, -1, -1)
        features: Tensor = self.network(((colour + 1) / 2 - self.mean) / self.deviation)
        return features


def _small_cnn(size: tuple[int, int], *, channels: int, width: int) -> tuple[nn.Module, int]:
    network = SmallCNN(size, num_channels=channels, num_classes=2, width=width)
    trunk = nn.Sequential(network.features, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return trunk, network.head.in_features


def _resnet(settings: NetworkSettings, *, size: tuple[int, int]) -> tuple[nn.Module, int]:
    import torchvision

    network = {"resnet18": torchvision.models.resnet18, "resnet50": torchvision.models.resnet50}[settings.kind]()
    num_features = int(network.fc.in_features)
    network.fc = nn.Identity()
    if settings.weights is not None:
        _load(network, settings.weights, head="fc.")
    elif max(size) <= 64:
        # He et al. 2016, section 4.2: small images meet a 3x3 convolution first, and are not halved at once.
        network.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    return _Normalised(network), num_features


def _vit(settings: NetworkSettings, *, size: tuple[int, int]) -> tuple[nn.Module, int]:
    try:
        import timm
    except ImportError as error:
        raise ValueError(f"the network {settings.kind} needs timm; install minority-augment[timm].") from error
    if size[0] != size[1] or size[0] % 4:
        raise ValueError(f"{settings.kind} takes square images with a side divisible by 4, got {size}; set input_size.")
    # 16-pixel patches where the image has enough of them, else patches that make a grid of at least 7 x 7.
    patch = 16 if size[0] >= 112 else max(p for p in (2, 4, 8) if size[0] % p == 0 and (p == 2 or size[0] // p >= 7))
    name = {"vit-tiny": "vit_tiny_patch16_224", "vit-small": "vit_small_patch16_224"}[settings.kind]
    network = timm.create_model(name, pretrained=False, img_size=size, patch_size=patch, num_classes=0)
    if settings.weights is not None:
        _load(network, settings.weights, head="head.")
    return _Normalised(network), int(network.num_features)  # type: ignore[arg-type]


def _load(network: nn.Module, file: str, *, head: str) -> None:
    path = Path(file).expanduser()
    if not path.is_file():
        raise ValueError(f"the classifier's weights {path} do not exist; correct network.weights, or leave it out.")
    state = {name: value for name, value in read_tensors(path).items() if not name.startswith(head)}
    wanted = network.state_dict()
    wrong = sorted(wanted.keys() ^ state.keys()) or [n for n, value in wanted.items() if value.shape != state[n].shape]
    if wrong:
        raise ValueError(
            f"{path} holds weights of another network: {wrong[0]} is missing, unknown or of another shape "
            f"({len(wrong)} in all); name the file of this very network, and its input_size."
        )
    network.load_state_dict(state)
