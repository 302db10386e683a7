"""How long a call of the denoiser takes on this machine, and how many calls scores cost."""

import torch

from minority.backbones import Backbone
from minority.engine.prepare import prepared
from minority.runtime.timing import seconds_of, speed_up
from minority.sampling.draw import ScoreSettings


def seconds_a_call(backbone: Backbone, *, batch_size: int, device: torch.device | str, side_by_side: int = 1) -> float:
    """Seconds of one forward pass of a batch of noise on an idle machine, the median of a few.

    Args:
        backbone: On any device.
        batch_size: Samples in the batch.
        device: Where to compute.
        side_by_side: Threads that draw at once; above 1, what a pass adds to the time of all.
    """
    denoiser = prepared(backbone, device=device).denoiser
    x = torch.randn(batch_size, *backbone.state_shape, device=device)
    timestep = torch.full((batch_size,), len(backbone.schedule.abar) // 2, dtype=torch.int64, device=device)
    label = None if backbone.num_classes is None else torch.zeros(batch_size, dtype=torch.int64, device=device)

    def call() -> None:
        with torch.no_grad():
            denoiser(x, timestep, label)

    return seconds_of(call, device=device) / speed_up(call, threads=side_by_side)


def evaluations_of_scores(settings: ScoreSettings) -> int:
    """Denoiser evaluations that the scores of one image take: the minority score's draws, and the ELBO's steps."""
    return settings.draws + settings.elbo_steps
