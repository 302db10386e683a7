"""Losses against imbalance.

    class-balanced (Cui et al. 2019)        weight of class y  ~  (1 - beta) / (1 - beta^n_y)
    logit adjustment (Menon et al. 2021)    cross-entropy of  logits + tau log pi_y,  pi = how often y is drawn
    GroupDRO (Sagawa et al. 2020)           q_g <- q_g exp(eta loss_g), normalised;  minimise  sum_g q_g loss_g

Shapes: B images, K classes, G groups.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minority.downstream.arms import Arm
from minority.downstream.data import Float64, Int64

#: (B, K) logits, (B, K) targets that sum to 1 a row, (B,) groups -> the loss.
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def loss_of(
    arm: Arm,
    *,
    labels: Int64,
    odds: Float64,
    num_classes: int,
    num_groups: int,
    device: torch.device | str,
) -> Loss:
    """The loss that an arm minimises.

    Args:
        arm: The recipe.
        labels: Classes of the images that are drawn.
        odds: How often each of them is drawn; same length.
        num_classes: K.
        num_groups: G.
        device: Where logits are.
    """
    if arm.loss == "class_balanced":
        counts = np.bincount(labels[odds > 0], minlength=num_classes)
        return ClassBalanced(class_balanced_weights(counts, beta=arm.beta), device=device)
    if arm.loss == "logit_adjusted":
        prior = np.asarray(np.bincount(labels, weights=odds, minlength=num_classes), dtype=np.float64)
        return LogitAdjusted(prior, tau=arm.tau, device=device)
    if arm.loss == "group_dro":
        return GroupDRO(num_groups, eta=arm.eta, device=device)
    return cross_entropy


def cross_entropy(logits: Tensor, targets: Tensor, groups: Tensor) -> Tensor:
    """Mean cross-entropy."""
    return F.cross_entropy(logits, targets)


def class_balanced_weights(counts: Int64, *, beta: float) -> Float64:
    """Weights of the classes by their effective number of images (Cui et al. 2019); their mean is 1.

    Args:
        counts: (K,) images a class; a class without any has weight 0.
        beta: In [0, 1): 0 weighs all alike, towards 1 the weights become inverse to the counts.

    Returns:
        (K,).
    """
    effective = (1 - np.power(beta, counts.astype(np.float64))) / (1 - beta)
    weights = np.where(counts > 0, 1 / np.where(counts > 0, effective, 1.0), 0.0)
    return np.asarray(weights * np.count_nonzero(counts) / weights.sum())


class ClassBalanced:
    """Cross-entropy with a weight for every class.

    Args:
        weights: (K,).
        device: Where logits are.
    """

    def __init__(self, weights: Float64, *, device: torch.device | str) -> None:
        self._weights = torch.as_tensor(weights, dtype=torch.float32, device=device)

    def __call__(self, logits: Tensor, targets: Tensor, groups: Tensor) -> Tensor:
        """The weighted mean."""
        return -(targets * self._weights * logits.log_softmax(dim=1)).sum(dim=1).mean()


class LogitAdjusted:
    """Cross-entropy of logits that are raised by how common their class is, so that the others must be learnt better.

    Args:
        prior: (K,) how often each class is drawn, in any unit; a class that is never drawn is left as it is.
        tau: Strength, >= 0; 1 aims at the balanced error.
        device: Where logits are.
    """

    def __init__(self, prior: Float64, *, tau: float, device: torch.device | str) -> None:
        share = prior / prior.sum()
        shift = tau * np.log(np.where(share > 0, share, 1.0))
        self._shift = torch.as_tensor(shift, dtype=torch.float32, device=device)

    def __call__(self, logits: Tensor, targets: Tensor, groups: Tensor) -> Tensor:
        """The mean."""
        return F.cross_entropy(logits + self._shift, targets)


class GroupDRO:
    """Group losses weighted by an adversary that goes where the loss is; it learns with every call.

    A group that is not in the batch keeps its weight up to normalisation and adds nothing.

    Args:
        num_groups: G.
        eta: Step of the adversary, > 0.
        device: Where logits are.
    """

    def __init__(self, num_groups: int, *, eta: float, device: torch.device | str) -> None:
        self.weights = torch.full((num_groups,), 1 / num_groups, device=device)
        self._indicator = torch.eye(num_groups, device=device)
        self._eta = eta

    def __call__(self, logits: Tensor, targets: Tensor, groups: Tensor) -> Tensor:
        """The weighted sum of the groups' mean losses."""
        losses = -(targets * logits.log_softmax(dim=1)).sum(dim=1)  # (B,)
        member = self._indicator[groups]  # (B, G)
        group_losses = (losses @ member) / member.sum(dim=0).clamp(min=1)
        with torch.no_grad():
            raised = self.weights * torch.exp(self._eta * group_losses)
            self.weights.copy_(raised / raised.sum())
        return group_losses @ self.weights.to(losses.dtype)
