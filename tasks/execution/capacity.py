"""How many units can run side by side: on the Ray cluster that RAY_ADDRESS names, or in this process."""

import os
from dataclasses import dataclass

import torch

from tasks.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Workers:
    """What one unit occupies while it runs; changes no image.

    Attributes:
        gpus: GPUs a unit has to itself where it computes on one; 0.5 lets two units share a GPU.
        cpus: CPU cores a unit has to itself where there is no GPU.
    """

    gpus: float = 1.0
    cpus: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.gpus <= 1 or (self.gpus > 1 and self.gpus == int(self.gpus))):
            raise ValueError(f"workers.gpus must be a fraction in (0, 1] or a whole number, got {self.gpus:g}.")
        if not self.cpus > 0:
            raise ValueError(f"workers.cpus must be above 0, got {self.cpus:g}.")


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What one unit occupies while it runs.

    Attributes:
        workers: GPUs or CPU cores a unit.
        device: The config's device: "cuda", "cpu", or "auto" for a GPU where there is one.
    """

    workers: Workers = Workers()
    device: str = "auto"


@dataclass(frozen=True)
class Machine:
    """What one machine has for units."""

    gpus: float
    cpus: float


def on_ray() -> bool:
    """Whether units run on a Ray cluster."""
    return bool(os.environ.get("RAY_ADDRESS"))


def machines() -> list[Machine]:
    """The living machines of the cluster, or this process: it computes on one GPU."""
    if not on_ray():
        return [Machine(gpus=min(1, torch.cuda.device_count()), cpus=os.cpu_count() or 1)]
    import ray

    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Machine(gpus=machine.get("GPU", 0), cpus=machine.get("CPU", 0)) for machine in resources]


def takes_gpu(demand: Demand, machines: list[Machine]) -> bool:
    """Whether units compute on GPUs."""
    return demand.device == "cuda" or (demand.device == "auto" and any(machine.gpus for machine in machines))


def worker_slots(demand: Demand) -> int:
    """Units that can run side by side now, at least 1.

    Raises:
        InputError: No machine has what one unit occupies; waiting for one would never end.
    """
    machine_list = machines()
    kind, wanted = ("gpus", demand.workers.gpus) if takes_gpu(demand, machine_list) else ("cpus", demand.workers.cpus)
    have = [getattr(machine, kind) for machine in machine_list]
    count = sum(_fit(wanted, into=have_one) for have_one in have)
    if count == 0:
        where = f"the Ray cluster at {os.environ['RAY_ADDRESS']}" if on_ray() else "this process"
        raise InputError(
            f"workers.{kind} is {wanted:g} a unit, but the largest machine of {where} has {max(have, default=0):g}; "
            f"lower workers.{kind}{', set device to cpu' if kind == 'gpus' else ''} or add such a machine."
        )
    return count


def _fit(wanted: float, *, into: float) -> int:
    """How often a demand fits into what one machine has. A fraction never straddles two GPUs or cores."""
    rounding = 1e-9
    if wanted < 1:
        return int(into) * int(1 / wanted + rounding)
    return int(into / wanted + rounding)
