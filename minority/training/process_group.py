"""The processes that train one network together: one alone, or several by accelerate, one a GPU.

All of them draw the same batch and each works on its own part of it; gradients are averaged at every step. So the
number of processes changes a run by rounding and by dropout masks alone.
"""

from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from accelerate import Accelerator


class ProcessGroup(Protocol):
    """What the loop asks of the processes.

    Attributes:
        rank: This process, 0 first.
        size: How many there are.
        device: Where this one computes.
    """

    rank: int
    size: int
    device: torch.device

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network whose gradients are averaged over the processes."""
        ...

    def gather_gradients_later(self, network: nn.Module) -> AbstractContextManager[object]:
        """Inside, gradients of the wrapped network stay in this process."""
        ...

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes of each value, NaN left out."""
        ...


class SingleProcess:
    """One process.

    Args:
        device: Where to train.
    """

    rank, size = 0, 1

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network itself."""
        return network

    def gather_gradients_later(self, network: nn.Module) -> AbstractContextManager[object]:
        """Nothing to gather."""
        return nullcontext()

    def mean(self, values: Tensor) -> Tensor:
        """The values themselves."""
        return values


class ManyProcesses:
    """One of several processes that torch's launcher (torch.distributed.run, `accelerate launch`) started.

    Args:
        accelerator: Its hold on the others.
    """

    def __init__(self, accelerator: "Accelerator") -> None:
        self._accelerator = accelerator
        self.rank, self.size = accelerator.process_index, accelerator.num_processes
        self.device = accelerator.device

    @classmethod
    def join(cls, *, cpu: bool) -> "ManyProcesses":
        """Join the others. The first may leave them waiting for hours, while it evaluates the network.

        Args:
            cpu: Whether to train on the CPU where there are GPUs.
        """
        from accelerate import Accelerator, InitProcessGroupKwargs

        return cls(Accelerator(cpu=cpu, kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=6))]))

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network under DistributedDataParallel."""
        wrapped: nn.Module = self._accelerator.prepare_model(network)
        return wrapped

    def gather_gradients_later(self, network: nn.Module) -> AbstractContextManager[object]:
        """Until the last part of a batch."""
        context: AbstractContextManager[object] = self._accelerator.no_sync(network)
        return context

    def mean(self, values: Tensor) -> Tensor:
        """Over all processes; each has to ask."""
        known = ~values.isnan()
        total = self._accelerator.reduce(torch.where(known, values, 0.0), reduction="sum")
        return total / self._accelerator.reduce(known.to(values), reduction="sum")
