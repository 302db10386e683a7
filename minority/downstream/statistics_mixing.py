"""MixStyle: an image, or a feature map, takes on another's mean and deviation in part (Zhou et al. 2021, 2104.02008).

    x'  =  s (x - mu(x)) / sigma(x) + m,     m = lambda mu(x) + (1 - lambda) mu(x~),  s likewise,  lambda ~ Beta(a, a)

mu and sigma are taken over height and width, channel by channel; x~ is the neighbour in the batch. On pixels this makes
flat colour and contrast worthless as a cue; in the first feature maps it does so for what they say about style.

Shapes: B images, C channels, H x W pixels.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from minority.downstream.networks import Classifier

#: Feature maps whose statistics are mixed: the first stages, as the paper does.
FEATURE_MAPS = 2
_SMALLEST = 1e-5


def mix_statistics(images: Tensor, shares: Tensor) -> Tensor:
    """Mix each image's statistics with its neighbour's in the batch.

    Args:
        images: (B, C, H, W), in random order.
        shares: (B,) lambda: 1 leaves an image as it is, 0 gives it its neighbour's statistics.
    """
    mean = images.mean(dim=(2, 3), keepdim=True)
    deviation = (images.var(dim=(2, 3), keepdim=True, correction=0) + _SMALLEST).sqrt()
    # They say how much of which style there is, and are no way for gradients, as in the paper.
    mean, deviation = mean.detach(), deviation.detach()
    share = shares.view(-1, 1, 1, 1).to(images.dtype)
    mixed_mean = share * mean + (1 - share) * mean.roll(1, 0)
    mixed_deviation = share * deviation + (1 - share) * deviation.roll(1, 0)
    return (images - mean) / deviation * mixed_deviation + mixed_mean


class FeatureMixing:
    """Mixes the statistics of a network's first feature maps while it is trained.

    Args:
        network: A small CNN or a ResNet.
        shares: () -> (FEATURE_MAPS, B), lambda of every map and image, for the step that comes.

    Raises:
        ValueError: The network has no such maps.
    """

    def __init__(self, network: Classifier, shares: Callable[[], Tensor]) -> None:
        self._shares = shares
        self._hooks = [self._attach(module, stage) for stage, module in enumerate(_stages(network))]

    def remove(self) -> None:
        """Leave the network as it was."""
        for hook in self._hooks:
            hook.remove()

    def _attach(self, module: nn.Module, stage: int) -> Any:
        def mix(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return mix_statistics(output, self._shares()[stage])

        return module.register_forward_hook(mix)


def _stages(network: Classifier) -> list[nn.Module]:
    """The last module of each of the first stages."""
    named = dict(network.trunk.named_modules())
    layers = [module for name, module in named.items() if name.split(".")[-1] in ("layer1", "layer2")]
    if layers:
        return layers[:FEATURE_MAPS]
    pools = [name for name, module in named.items() if isinstance(module, nn.MaxPool2d)]
    before = [f"{name.rpartition('.')[0]}.{int(name.rpartition('.')[2]) - 1}" for name in pools]
    if not before:
        raise ValueError(
            "feature mixing needs a small-cnn for images of 8 pixels a side or more, or a ResNet; choose another "
            "network or leave feature-mixing out."
        )
    return [named[name] for name in before[:FEATURE_MAPS]]
