"""How long a training step takes on this machine, from a few of them on noise."""

import time
from statistics import median

import torch
from torch import nn

from minority.training.settings import TrainingSettings

_WARM_UP, _TIMED = 1, 3


def seconds_a_step(
    network: nn.Module,
    *,
    image_shape: tuple[int, int, int],
    num_classes: int | None,
    settings: TrainingSettings,
    device: torch.device | str,
) -> float:
    """Time forward and backward passes and updates on images of noise. The network is left changed.

    Args:
        network: Called as (x_t, timestep, label), or without a label where `num_classes` is None; answers an object
            with `sample`, as diffusers' networks do.
        image_shape: (C, H, W).
        num_classes: Labels that it knows.
        settings: Of the training; batch, parts and precision count.
        device: Where to compute.

    Returns:
        Seconds, the median of a few steps.
    """
    network = network.to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.0)
    size = settings.batch_size // settings.accumulate
    x = torch.zeros(size, *image_shape, device=device)
    t = torch.zeros(size, dtype=torch.int64, device=device)
    labels = () if num_classes is None else (torch.zeros(size, dtype=torch.int64, device=device),)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(settings.precision)
    seconds = []
    for _ in range(_WARM_UP + _TIMED):
        started = time.perf_counter()
        for _ in range(settings.accumulate):
            with torch.autocast(torch.device(device).type, dtype=dtype, enabled=dtype is not None):
                answer = network(x, t, *labels).sample
            answer.float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return median(seconds[_WARM_UP:])
