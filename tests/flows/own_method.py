"""A guidance method in a file of its own, as somebody else's package would bring it along: it brightens every image."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from minority.guidance.method import Method


@dataclass(frozen=True, kw_only=True)
class Brightened(Method):
    """Adds the same amount to every pixel at every guided step."""

    key: ClassVar[str] = "brightened"
    paper: ClassVar[str] = "nobody's, 2026"
    line: ClassVar[str] = "makes every image brighter"
    grids = ({"amount": (0.5, 1.0), "every": (1, 2)},)

    amount: float = 1.0
    every: int = 1

    def __post_init__(self):
        if self.every < 1:
            raise ValueError(f"Brightened.every must be at least 1 step, got {self.every}.")

    def acts_at(self, step, num_steps):
        return step % self.every == 0

    def shift(self, estimate, chain, noise):
        return torch.full_like(estimate.x0_hat, self.amount)
