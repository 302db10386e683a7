"""How long a piece of work takes on this machine when nothing else keeps it busy."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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


def speed_up(work: Callable[[], object], *, threads: int) -> float:
    """How many times as much so many threads do together as one alone: between 1 and their number.

    They share one interpreter, so that the smaller the network, the more they wait for each other.
    """
    if threads == 1:
        return 1.0
    alone, together = [], []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(_TIMED):
            started = time.perf_counter()
            work()
            between = time.perf_counter()
            list(pool.map(lambda _: work(), range(threads)))
            alone.append(between - started)
            together.append(time.perf_counter() - between)
    return min(float(threads), max(1.0, threads * median(alone) / median(together)))
