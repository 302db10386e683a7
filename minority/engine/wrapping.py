"""A network around a network: whoever asks for its config, its dtype or its parameters gets the inner one's."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

Outputs = Tensor | tuple[Tensor, ...]


class Wrapping(nn.Module):
    """Passes every question that is not its own on to the network inside.

    Args:
        network: The inner one.
    """

    network: nn.Module

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def __getattr__(self, name: str) -> Any:
        """An attribute of this module, else of the inner network."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "network":
                raise
            return getattr(self.network, name)


def map_outputs(change: Callable[[Tensor], Tensor], outputs: Outputs) -> Outputs:
    """The same structure with every tensor changed."""
    return change(outputs) if isinstance(outputs, Tensor) else tuple(map(change, outputs))
