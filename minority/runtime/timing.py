"""How long a piece of work takes on this machine when nothing else keeps it busy."""

import time
from collections.abc import Callable
from statistics import median

import torch

_WARM_UP, _TIMED = 1, 3


def seconds_of(work: Callable[[], object], *, device: torch.device | str) -> float:
    """Run the work a few times; the median, in seconds.

    On a CPU that others use as well, the time of the clock counts their work. The process's own CPU time does not, and
    is never less than the clock would show on an idle machine: the lesser of the two is taken.

    Args:
        work: What is timed.
        device: Where it computes.
    """
    on_cpu = torch.device(device).type == "cpu"
    seconds = []
    for _ in range(_WARM_UP + _TIMED):
        started, computed = time.perf_counter(), time.process_time()
        work()
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()
        clock, processor = time.perf_counter() - started, time.process_time() - computed
        seconds.append(min(clock, processor) if on_cpu else clock)
    return median(seconds[_WARM_UP:])
