"""Deep feature reweighting: keep the features, fit the last layer anew on group-balanced data (Kirichenko et al. 2023).

A network that leans on a shortcut has mostly learnt the right features too; a last layer fitted where the shortcut does
not pay uses them. Groups weigh alike here instead of being cut down to the size of the smallest, so that no image is
wasted and nothing is left to chance. It takes no optimiser step of the budget: it is a convex fit to features that the
network has computed already.

Shapes: N images, D features, K classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minority.classifier import balancing_odds
from minority.downstream.data import Int64

_ITERATIONS = 100


def refit_last_layer(features: Tensor, labels: Int64, groups: Int64, *, num_classes: int, ridge: float) -> nn.Linear:
    """Fit a multinomial logistic regression with every group at equal weight.

    Args:
        features: (N, D) of the images to fit on, on any device.
        labels: (N,) their classes.
        groups: (N,) their groups.
        num_classes: K.
        ridge: Penalty on the squared weights of standardised features, > 0, relative to one group's mean loss / 100.

    Returns:
        A linear layer on the features as they came, on their device.
    """
    device = features.device
    odds = torch.as_tensor(balancing_odds(groups), device=device)  # (N,), float64
    x = features.detach().double()
    mean = odds @ x
    deviation = (odds @ (x - mean).square()).sqrt().clamp(min=1e-6)
    x = (x - mean) / deviation
    target = torch.as_tensor(labels, device=device)
    weight = torch.zeros((num_classes, x.shape[1]), dtype=torch.float64, device=device, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=torch.float64, device=device, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        solver.zero_grad()
        loss = odds @ F.cross_entropy(x @ weight.T + bias, target, reduction="none")
        loss = loss + ridge / 100 * weight.square().sum() / 2
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(objective)
    layer = nn.Linear(x.shape[1], num_classes).to(device)
    with torch.no_grad():
        layer.weight.copy_(weight / deviation)
        layer.bias.copy_(bias - (weight / deviation) @ mean)
    return layer
