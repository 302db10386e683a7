"""What one call of a network asks of a machine: arithmetic, and traffic with memory."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class NetworkWork:
    """The work of one call for a whole batch.

    Attributes:
        forward: FLOP of a forward pass; an addition and a multiplication are two.
        backward: FLOP of a backward pass to the input alone.
        bytes: Bytes that the forward pass's operations read and write, each by itself: fusing operations saves some.
    """

    forward: float
    backward: float
    bytes: float

    @property
    def intensity(self) -> float:
        """FLOP a byte of the forward pass."""
        return self.forward / self.bytes

    def flop(self, forwards: float, backwards: float) -> float:
        """FLOP of so many passes."""
        return forwards * self.forward + backwards * self.backward


def measure_work(call: Callable[[Tensor], Tensor], x: Tensor) -> NetworkWork:
    """Count the work of a network whose parameters need no gradients.

    Args:
        call: x -> output.
        x: One batch.
    """
    with sdpa_kernel(SDPBackend.MATH):  # whose products are counted on every device
        with torch.no_grad(), FlopCounterMode(display=False) as forward:
            call(x)
        leaf = x.detach().requires_grad_(True)
        with FlopCounterMode(display=False) as both:
            call(leaf).sum().backward()
    with torch.no_grad(), _Traffic() as traffic:
        call(x)
    total = forward.get_total_flops()
    return NetworkWork(forward=total, backward=both.get_total_flops() - total, bytes=traffic.bytes)


def profile(draw: Callable[[], object], *, device: str, rows: int = 8) -> list[dict[str, object]]:
    """Where the time of a batch goes: the operations that take most, without what they call."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with torch.profiler.profile(activities=activities) as found:
        draw()
    measure = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    events = sorted(found.key_averages(), key=lambda event: getattr(event, measure), reverse=True)
    total = sum(getattr(event, measure) for event in events)
    return [
        {"operation": event.key, "calls": event.count, "time, %": 100 * getattr(event, measure) / total}
        for event in events[:rows]
    ]


class _Traffic(TorchDispatchMode):
    """Adds up the sizes of what operations read and write; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        outputs = func(*args, **(kwargs or {}))
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
        storages = {tensor.untyped_storage().data_ptr() for tensor in inputs}
        if not all(tensor.untyped_storage().data_ptr() in storages for tensor in made):
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in inputs + made)
        return outputs
