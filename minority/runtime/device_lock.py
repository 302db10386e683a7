"""A lock of a device: units that share a GPU compute one batch at a time, and evaluate, encode and write meanwhile.

Two units of one process (workers.gpus = 0.5) overlap that way: while one batch is drawn, the images of another unit are
encoded and written, with the memory of one batch. Who goes first changes no image.
"""

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_locks: defaultdict[torch.device, threading.RLock] = defaultdict(threading.RLock)
_choosing = threading.Lock()


@contextmanager
def device_lock(device: torch.device | str) -> Iterator[None]:
    """Hold a device for the block; on a CPU, whose cores serve many at once, nobody waits.

    Args:
        device: Where the block computes.
    """
    device = torch.device(device)
    if device.type == "cpu":
        yield
        return
    with _choosing:
        lock = _locks[device]
    with lock:
        yield
