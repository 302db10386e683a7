"""Batches of few sizes: what is shorter is filled up, so that a network is compiled or recorded once.

Samples do not interact, so what is filled in changes nothing but rounding.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from minority.engine.wrapping import Outputs, Wrapping, map_outputs

_logger = logging.getLogger(__name__)


class StaticShapes(Wrapping):
    """Calls a network with sizes of batch that it has seen before, wherever one is large enough.

    Args:
        network: Its tensor arguments have the batch first, or no dimension; it returns one such tensor or several.
        name: What the log calls it.
    """

    def __init__(self, network: nn.Module, *, name: str = "network") -> None:
        super().__init__(network)
        self._name = name
        self._seen: set[tuple[int, bool]] = set()
        self._first_call = threading.Lock()

    def forward(self, sample: Tensor, *arguments: Any, **named: Any) -> Outputs:
        """The network's outputs for the batch that was given."""
        batch, with_gradient = len(sample), torch.is_grad_enabled()
        size = min((n for n, gradient in self._seen if gradient == with_gradient and n >= batch), default=batch)

        def filled(value: Any) -> Any:
            if not isinstance(value, Tensor) or value.ndim == 0 or size == batch:
                return value
            return torch.cat([value, value[-1:].expand(size - batch, *value.shape[1:])])

        def call() -> Outputs:
            return self.network(
                filled(sample), *map(filled, arguments), **{name: filled(value) for name, value in named.items()}
            )

        outputs = call() if (size, with_gradient) in self._seen else self._first(call, size, with_gradient)
        return map_outputs(lambda output: output[:batch], outputs)

    def _first(self, call: Callable[[], Outputs], size: int, with_gradient: bool) -> Outputs:
        with self._first_call:  # other threads wait instead of compiling the same again
            started = time.monotonic()
            outputs = call()
            if (size, with_gradient) not in self._seen:
                self._seen.add((size, with_gradient))
                kind = "with" if with_gradient else "without"
                seconds = time.monotonic() - started
                _logger.info("%s: ready for batches of %d %s gradients in %.1f s", self._name, size, kind, seconds)
        return outputs
