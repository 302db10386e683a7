"""Batches that fit into the device's memory: where one does not, it is halved, and the work goes on from there.

A sample is a function of its own seed and index, so the size of a batch changes no sample's identity; on a GPU its
pixels may differ by rounding, as with any other batch size.
"""

import gc
import logging
from collections.abc import Callable
from typing import TypeVar

import torch

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
        what: What the items are called in the log.

    Returns:
        What `work` returned, batch by batch.

    Raises:
        torch.OutOfMemoryError: Not even the smallest batch fits.
    """
    results: list[_Result] = []
    start = 0
    while start < count:
        part = slice(start, min(start + size, count))
        result, fitted = _try(work, part, last=size <= smallest)
        if not fitted:
            halved = max(smallest, size // 2 // smallest * smallest)
            _logger.warning("out of memory with %d %s at once; going on with %d", size, what, halved)
            size = halved
            continue
        results.extend(result)
        start = part.stop
    return results


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
