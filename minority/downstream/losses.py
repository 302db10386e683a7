"""Losses against imbalance.

    class-balanced (Cui et al. 2019)        weight of class y  ~  (1 - beta) / (1 - beta^n_y)
    logit adjustment (Menon et al. 2021)    cross-entropy of  logits + tau log pi_y,  pi = how often y is drawn
    by attribute                            cross-entropy of  logits + tau log p(y | a),  a = the image's attribute
    generalised (Zhang & Sabuncu 2018)      (1 - p_y^q) / q:  what is easy is learnt, the rest is left
    GroupDRO (Sagawa et al. 2020)           q_g <- q_g exp(eta loss_g), normalised;  minimise  sum_g q_g loss_g

Logit adjustment by attribute is that of Menon et al. with the label's share inside the attribute in place of its share
in all: what the attribute alone says about the class is given, and need not be learnt from the image.

Shapes: B images, K classes, G groups, A attributes.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minority.downstream.arms import Arm
from minority.downstream.data import Float64, Int64

#: (B, K) logits, (B, K) targets that sum to a row's weight, (B,) groups or attributes -> the loss.
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def loss_of(
    arm: Arm,
    *,
    labels: Int64,
    odds: Float64,
    num_classes: int,
    num_groups: int,
    attributes: Int64 | None = None,
    device: torch.device | str,
) -> Loss:
    """The loss that an arm minimises.

    Args:
        arm: The recipe.
        labels: Classes of the images that are drawn.
        odds: How often each of them is drawn; same length.
        num_classes: K.
        num_groups: G.
        attributes: Attributes of the images; same length. None where they are not known.
        device: Where logits are.
    """
    if arm.loss == "attribute_adjusted":
        assert attributes is not None, "asked for before"
        share = class_shares(labels, attributes, odds, num_classes=num_classes, smoothing=arm.smoothing)
        return AttributeAdjusted(share, tau=arm.tau, device=device)
    if arm.loss == "generalised":
        return GeneralisedCrossEntropy(q=arm.q)
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


def entropies(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy (B,) of each image."""
    return -(targets * logits.log_softmax(dim=1)).sum(dim=1)


class GeneralisedCrossEntropy:
    """(1 - p^q) / q for the probability p of the label: a large error weighs little, so that what is easy is learnt.

    Args:
        q: In (0, 1]; towards 0 it is cross-entropy, at 1 the mean absolute error.
    """

    def __init__(self, *, q: float) -> None:
        self._q = q

    def __call__(self, logits: Tensor, targets: Tensor, groups: Tensor) -> Tensor:
        """The mean; a target's row sum is the image's weight."""
        weight = targets.sum(dim=1)
        right = (targets * logits.softmax(dim=1)).sum(dim=1) / weight.clamp(min=1e-8)
        return (weight * (1 - right.clamp(min=1e-8) ** self._q) / self._q).mean()


def class_shares(labels: Int64, attributes: Int64, odds: Float64, *, num_classes: int, smoothing: float) -> Float64:
    """p(y | a) as images are drawn, (A, K); rows sum to 1.

    Args:
        labels: (N,) classes.
        attributes: (N,) attributes in [0, A).
        odds: (N,) how often each image is drawn; they sum to 1.
        num_classes: K.
        smoothing: Images that are added to each attribute, spread over the classes.
    """
    drawn = np.zeros((int(attributes.max()) + 1, num_classes))
    np.add.at(drawn, (attributes, labels), odds * len(labels))
    drawn += smoothing / num_classes
    return np.asarray(drawn / drawn.sum(axis=1, keepdims=True))


class AttributeAdjusted:
    """Cross-entropy of logits that are raised by how common their class is for the image's attribute.

    Args:
        shares: (A, K) p(y | a), all above 0.
        tau: Strength, >= 0.
        device: Where logits are.
    """

    def __init__(self, shares: Float64, *, tau: float, device: torch.device | str) -> None:
        self._shift = torch.as_tensor(tau * np.log(shares), dtype=torch.float32, device=device)

    def __call__(self, logits: Tensor, targets: Tensor, attributes: Tensor) -> Tensor:
        """The mean."""
        return F.cross_entropy(logits + self._shift[attributes], targets)


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
        losses = entropies(logits, targets)
        member = self._indicator[groups]  # (B, G)
        group_losses = (losses @ member) / member.sum(dim=0).clamp(min=1)
        with torch.no_grad():
            raised = self.weights * torch.exp(self._eta * group_losses)
            self.weights.copy_(raised / raised.sum())
        return group_losses @ self.weights.to(losses.dtype)
