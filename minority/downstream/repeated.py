"""Many equal steps in a row: on a GPU as one recorded graph, which spares the host's work on every step."""

from collections.abc import Callable

import torch

_WARM_UP = 3  # steps that are run as they are before one is recorded


def repeat(step: Callable[[], None], *, times: int, device: torch.device, record: bool) -> None:
    """Run a step many times.

    Args:
        step: Reads and writes tensors that stay where they are; takes what changes from step to step out of tables on
            the device, by a counter on the device.
        times: How often.
        device: Where the tensors are.
        record: Record the step as a CUDA graph; without effect elsewhere.
    """
    if device.type != "cuda" or not record or times <= _WARM_UP:
        for _ in range(times):
            step()
        return
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):
            step()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # records without running
        step()
    for _ in range(times - _WARM_UP):
        graph.replay()
    torch.cuda.synchronize(device)  # the graph's memory goes with it
