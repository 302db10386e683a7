"""What a training step minimises, beside a loss of the logits: recipes that need a second network.

    attribute adversary   a second head guesses the attribute from features and class; the features are changed so that
                          it cannot (Zhang, Lemoine & Mitchell 2018, for equalised odds; by gradient reversal, Ganin et
                          al. 2016)
    LfF                   learning from failure (Nam et al. 2020): a second network learns what is easy by generalised
                          cross-entropy; the first one minds what the second fails at,
                          W = CE(second) / (CE(second) + CE(first))

Shapes: B images, C channels, H x W pixels, K classes, D features.
"""

from collections.abc import Iterable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minority.downstream.losses import GeneralisedCrossEntropy, Loss, entropies
from minority.downstream.networks import Classifier


class Objective(Protocol):
    """What is minimised, and by which parameters."""

    def parameters(self) -> Iterable[nn.Parameter]:
        """All that an optimiser changes."""
        ...

    def __call__(self, images: Tensor, targets: Tensor, keys: Tensor, *, loss: Loss) -> Tensor:
        """The loss of a batch: (B, C, H, W) images, (B, K) targets, (B,) groups or attributes."""
        ...


class OneNetwork:
    """A loss of the network's logits.

    Args:
        network: The classifier.
        half: Whether activations are bfloat16.
    """

    def __init__(self, network: Classifier, *, half: bool) -> None:
        self.network, self._half = network, half

    def parameters(self) -> Iterable[nn.Parameter]:
        """The network's."""
        return self.network.parameters()

    def __call__(self, images: Tensor, targets: Tensor, keys: Tensor, *, loss: Loss) -> Tensor:
        """The loss of its logits."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self._half):
            logits = self.network(images)
        return loss(logits.float(), targets, keys)


class Adversarial:
    """A loss of the logits, and an adversary that guesses the attribute.

    Args:
        network: The classifier.
        half: Whether activations are bfloat16.
        num_attributes: Values of the attribute, >= 2.
        strength: How much the features mind the adversary, > 0.
        seed: Decides the adversary's first weights.
    """

    def __init__(self, network: Classifier, *, half: bool, num_attributes: int, strength: float, seed: int) -> None:
        self.network, self._half, self._strength = network, half, strength
        num_classes, num_features = network.head.weight.shape
        device = network.head.weight.device
        # One row of weights a class: the adversary knows the class, so that what class and attribute share is spared.
        self.guess = nn.Linear(num_features, num_attributes * num_classes)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.guess.parameters():
                parameter.uniform_(-(num_features**-0.5), num_features**-0.5, generator=generator)
        self.guess.to(device)
        self._shape = (num_classes, num_attributes)

    def parameters(self) -> Iterable[nn.Parameter]:
        """Those of network and adversary."""
        return [*self.network.parameters(), *self.guess.parameters()]

    def __call__(self, images: Tensor, targets: Tensor, keys: Tensor, *, loss: Loss) -> Tensor:
        """The classifier's loss, and the adversary's, whose gradient is turned round where it meets the features."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self._half):
            features = self.network.trunk(images)
            logits = self.network.head(features)
        logits, features = logits.float(), features.float()
        guesses = self.guess(_Reversed.apply(features, self._strength)).view(-1, *self._shape)
        guessed = (guesses * targets[:, :, None]).sum(dim=1)  # (B, attributes)
        return loss(logits, targets, keys) + F.cross_entropy(guessed, keys)


class _Reversed(torch.autograd.Function):
    """The identity, whose gradient is turned round and scaled."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


class LearningFromFailure:
    """Two networks, the second of which shows the first what is not easy. Other losses are passed over.

    Args:
        network: The classifier.
        biased: The network that learns what is easy.
        half: Whether activations are bfloat16.
        q: Of the second one's generalised cross-entropy.
    """

    def __init__(self, network: Classifier, biased: Classifier, *, half: bool, q: float) -> None:
        self.network, self.biased, self._half = network, biased.train(), half
        self._easy = GeneralisedCrossEntropy(q=q)

    def parameters(self) -> Iterable[nn.Parameter]:
        """Those of both networks."""
        return [*self.network.parameters(), *self.biased.parameters()]

    def __call__(self, images: Tensor, targets: Tensor, keys: Tensor, *, loss: Loss) -> Tensor:
        """The weighted cross-entropy of the first, and the generalised one of the second."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self._half):
            logits, easy = self.network(images), self.biased(images)
        losses, easy_losses = entropies(logits.float(), targets), entropies(easy.float(), targets)
        weights = relative_difficulty(losses.detach(), easy_losses.detach())
        return (weights * losses).mean() + self._easy(easy.float(), targets, keys)


def relative_difficulty(losses: Tensor, easy_losses: Tensor) -> Tensor:
    """W (B,) in [0, 1] of the losses (B,) of the first network and of the second (Nam et al. 2020)."""
    return easy_losses / (easy_losses + losses).clamp(min=1e-8)
