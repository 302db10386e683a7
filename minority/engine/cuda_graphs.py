"""Calls of a network recorded as CUDA graphs and replayed: all its kernels by one launch.

Only calls without gradients are recorded: a replay overwrites the activations of the call before, which a backward
pass might still need. Calls with gradients, and all calls on other devices, go to the network as they are.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from minority.engine.wrapping import Outputs, Wrapping, map_outputs

_Shape = tuple[tuple[str, tuple[int, ...], torch.dtype], ...]
_Replay = Callable[[dict[str, Tensor]], Outputs]


class Recorded(Wrapping):
    """A network whose calls are recorded once for every shape of its arguments.

    Args:
        network: Works without synchronising with the host.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self._replays: dict[tuple[_Shape, tuple[tuple[str, object], ...]], _Replay] = {}

    def forward(self, *arguments: Any, **named: Any) -> Outputs:
        """The network's outputs; the caller may keep them."""
        named |= {str(position): argument for position, argument in enumerate(arguments)}
        tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
        plain = {name: value for name, value in named.items() if name not in tensors}
        if torch.is_grad_enabled() or not all(tensor.is_cuda for tensor in tensors.values()):
            return _call(self.network, named)
        shape = tuple((name, tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items())
        key = (shape, tuple(plain.items()))
        if key not in self._replays:
            self._replays[key] = _record(self.network, tensors, plain)
        return self._replays[key](tensors)


def _call(network: nn.Module, named: dict[str, Any]) -> Outputs:
    """Call a network with arguments by name, or by position where the name is a number."""
    positional = [named[name] for name in sorted(filter(str.isdecimal, named), key=int)]
    return network(*positional, **{name: value for name, value in named.items() if not name.isdecimal()})


def _record(network: nn.Module, tensors: dict[str, Tensor], plain: dict[str, object]) -> _Replay:
    fixed = {name: tensor.clone() for name, tensor in tensors.items()}
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # what is set up lazily must not be recorded
        for _ in range(3):
            _call(network, fixed | plain)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # Other threads, which draw noise, may go on using the GPU meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outputs = _call(network, fixed | plain)

    def replay(given: dict[str, Tensor]) -> Outputs:
        for name, tensor in given.items():
            fixed[name].copy_(tensor)
        graph.replay()
        return map_outputs(Tensor.clone, outputs)

    return replay
