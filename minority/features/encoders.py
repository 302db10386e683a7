"""Image encoders for guidance and distances: differentiable, by name and local weights; nothing is downloaded.

Shapes: B images, C channels, H x W pixels, D features; images are in [-1, 1].
"""

import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from minority.weights import WeightsError, read_tensors

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which these networks were trained on


class ImageEncoder(nn.Module):
    """A network for ImageNet-like input behind the project's range of pixels.

    Grey images become RGB, all are resized to `size` and standardised.

    Args:
        network: (B, 3, size, size) -> (B, D).
        size: Side in pixels that the network wants; None leaves images as they are.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, *, size: int | None = 224) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.size = size
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, D) features of (B, C, H, W) images in [-1, 1], C = 1 or 3."""
        x = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        if self.size is not None and x.shape[-2:] != (self.size, self.size):
            x = F.interpolate(x, size=(self.size, self.size), mode="bilinear", align_corners=False, antialias=False)
        features: Tensor = self.network(((x + 1) / 2 - self.mean) / self.std)
        return features.flatten(1)


def load_encoder(name: str, weights: str | Path, *, size: int | None = 224) -> ImageEncoder:
    """Load one of torchvision's classifiers without its last layer.

    Args:
        name: As torchvision calls it, for example "resnet18" or "vit_b_16".
        weights: Its state dict: a .safetensors file, or a file of torch.save, read without running code.
        size: Side in pixels of its input.

    Raises:
        WeightsError: Where the name is unknown, or the file is missing or does not fit.
    """
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise WeightsError(
            f"there is no encoder {name!r}; take a classifier of torchvision, for example resnet18 or vit_b_16."
        )
    network = torchvision.models.get_model(name, weights=None)
    tensors = read_tensors(Path(weights))
    problems = network.load_state_dict(tensors, strict=False) if _fits(network, tensors) else None
    if problems is None or problems.missing_keys or problems.unexpected_keys:
        raise WeightsError(f"{weights} does not hold the weights of {name}; give the state dict of that network.")
    for head in ("fc", "heads", "head", "classifier"):
        if hasattr(network, head):
            setattr(network, head, nn.Identity())
            break
    return ImageEncoder(network, size=size)


def _fits(network: nn.Module, tensors: dict[str, Tensor]) -> bool:
    expected = network.state_dict()
    return all(name not in expected or expected[name].shape == tensor.shape for name, tensor in tensors.items())


class Lpips(nn.Module):
    """Learned perceptual distance (Zhang et al., CVPR 2018), by the package `lpips`.

    Images below 64 pixels are enlarged to 64, since the networks pool more than small images can bear.

    Args:
        net: "alex" (published for guidance), "vgg" or "squeeze".
        weights: The classifier's weights as torchvision publishes them; None looks in torch's own cache.

    Raises:
        WeightsError: Where the package or the weights are missing.
    """

    _files = {  # noqa: RUF012 - a table, never written to
        "alex": ("alexnet", "alexnet-owt-7be5be79.pth"),
        "vgg": ("vgg16", "vgg16-397923af.pth"),
        "squeeze": ("squeezenet1_1", "squeezenet1_1-b8a52dc0.pth"),
    }

    def __init__(self, net: str = "alex", *, weights: str | Path | None = None) -> None:
        super().__init__()
        if net not in self._files:
            raise WeightsError(f"LPIPS needs one of {', '.join(self._files)}, got {net!r}.")
        try:
            import lpips
        except ModuleNotFoundError as error:
            raise WeightsError("the LPIPS distance needs the package lpips; install it: pip install lpips.") from error
        name, file = self._files[net]
        path = Path(weights) if weights is not None else Path(torch.hub.get_dir()) / "checkpoints" / file
        if not path.is_file():
            raise WeightsError(
                f"LPIPS needs the weights of {name}, and {path} does not exist; put torchvision's {file} there, or "
                "give its path."
            )
        tensors = read_tensors(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the package asks torchvision in an old way
            self.metric = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
        self._load_trunk(tensors, path=path)
        self.eval().requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """(B,) distances of two (B, C, H, W) batches in [-1, 1]."""
        distances: Tensor = self.metric(_large_rgb(a), _large_rgb(b))
        return distances.flatten()

    def _load_trunk(self, tensors: dict[str, Tensor], *, path: Path) -> None:
        trunk = self.metric.net.state_dict()
        # The package cuts the classifier's "features.<n>" into slices and keeps the numbers.
        wanted = {f"features.{key.split('.', 1)[1]}": key for key in trunk}
        if not all(name in tensors and tensors[name].shape == trunk[key].shape for name, key in wanted.items()):
            raise WeightsError(f"{path} does not hold the weights that LPIPS needs; take torchvision's own file.")
        self.metric.net.load_state_dict({key: tensors[name] for name, key in wanted.items()})


def _large_rgb(images: Tensor) -> Tensor:
    x = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
    if min(x.shape[-2:]) < 64:
        scale = 64 / min(x.shape[-2:])
        size = (round(x.shape[-2] * scale), round(x.shape[-1] * scale))
        x = F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=False)
    return x
