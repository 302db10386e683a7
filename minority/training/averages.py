"""Averages of the weights along the run: the usual exponential one, and power-function profiles.

A power-function profile of exponent g weighs the weights of step t by t ** g, so that its length is a share of the run
so far, however long that is (Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models",
section 3.1):

    average(t) = b(t) average(t - 1) + (1 - b(t)) weights(t),    b(t) = (1 - 1 / t) ** (g + 1)

Its *length* is the standard deviation of the profile in units of the run, sigma = sqrt((g + 1) / ((g + 2)^2 (g + 3))).
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

#: Lengths lie below this one, which weighs all steps alike (g = 0).
LONGEST = 12**-0.5

Weights = dict[str, Tensor]


class WeightAverage:
    """A moving average of a network's parameters and buffers.

    Args:
        network: Whose weights it starts from.
        decay: Step (0 first) -> share of the average that stays.
    """

    def __init__(self, network: nn.Module, decay: Callable[[int], float]) -> None:
        self.weights: Weights = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self._decay = decay

    @torch.no_grad()
    def update(self, step: int, current: Mapping[str, Tensor]) -> None:
        """Take in the weights after a step."""
        floating = [name for name, value in current.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [self.weights[name] for name in floating], [current[name] for name in floating], 1 - self._decay(step)
        )
        for name in current.keys() - set(floating):  # counters are taken as they are
            self.weights[name].copy_(current[name])

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Take over saved weights, in place."""
        for name, value in weights.items():
            self.weights[name].copy_(value)


def exponential(decay: float) -> Callable[[int], float]:
    """The decay of the usual average; it grows into its value, so that the initial weights are soon forgotten."""
    return lambda step: min(decay, (step + 1) / (step + 10))


def power_function(length: float) -> Callable[[int], float]:
    """The decay of a power-function profile.

    Args:
        length: Standard deviation of the profile as a share of the run, in (0, 12 ** -0.5).
    """
    exponent = power_exponent(length)
    return lambda step: float((1 - 1 / (step + 1)) ** (exponent + 1))


def power_exponent(length: float) -> float:
    """The exponent g of the profile of a length: the root of sigma^2 (g + 2)^2 (g + 3) = g + 1.

    Raises:
        ValueError: Where the length is out of range.
    """
    if not 0 < length < LONGEST:
        raise ValueError(f"the length of an average must lie above 0 and below {LONGEST:.3f}, got {length}.")
    inverse = length**-2
    return float(np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse]).real.max())
