"""Batches that fit into the device's memory: where one does not, it is halved, and the work goes on from there.

A sample is a function of its own seed and index, so the size of a batch changes no sample's identity; on a GPU its
pixels may differ by rounding, as with any other batch size.
"""

import gc
import logging
import time
from collections.abc import Callable
from typing import TypeVar

import torch

from minority.runtime.interruption import stop_if_interrupted
from minority.runtime.progress import counted

#: Not even the smallest batch fits into the device's memory.
OutOfMemoryError = torch.OutOfMemoryError

_SECONDS_BETWEEN_LINES = 10.0

_Result = TypeVar("_Result")
_logger = logging.getLogger(__name__)


def in_batches(
    count: int, *, size: int, work: Callable[[slice], _Result], smallest: int = 1, what: str = "samples"
) -> list[_Result]:
    """Do a piece of work batch by batch, in order.

    Args:
        count: Items in all.
        size: Items a batch at first, a multiple of `smallest`.
        work: Does one batch, given the range of its items; called again for a shorter range where memory ran out.
        smallest: Items that must stay together; batches are multiples of it.
        what: What the items are called in the log, and for whoever shows progress.

    Returns:
        What `work` returned, batch by batch.

    Raises:
        OutOfMemoryError: Not even the smallest batch fits.
    """
    results: list[_Result] = []
    start, last_line = 0, time.monotonic()
    began = last_line
    with counted(what, unit=what) as show:
        while start < count:
            stop_if_interrupted()
            part = slice(start, min(start + size, count))
            result, fitted = _try(work, part, last=size <= smallest)
            if not fitted:
                halved = max(smallest, size // 2 // smallest * smallest)
                _logger.warning("out of memory with %d %s at once; going on with %d", size, what, halved)
                size = halved
                continue
            results.extend(result)
            start = part.stop
            show(start, count)
            if start < count and time.monotonic() - last_line >= _SECONDS_BETWEEN_LINES:
                last_line = time.monotonic()
                rate = start / (last_line - began)
                left = (count - start) / rate
                _logger.info("%d of %d %s, %.3g a second, %.0f s left", start, count, what, rate, left)
    return results


def peak_memory(device: torch.device | str) -> int:
    """Bytes of the device that this process has had in use at most; 0 on the CPU."""
    return torch.cuda.max_memory_allocated(device) if torch.device(device).type == "cuda" else 0


def _try(work: Callable[[slice], _Result], part: slice, *, last: bool) -> tuple[list[_Result], bool]:
    """([result], True), or ([], False) where memory ran out. What the attempt held is free again on return."""
    try:
        return [work(part)], True
    except torch.OutOfMemoryError:
        if last:
            raise
    # Only now is the error gone, and with it the frames that held tensors.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return [], False
