"""What a sample costs, before one is drawn: the sampler's own count, worked out from the settings."""

import math

from minority.backbones import Backbone
from minority.sampling.settings import SamplerSettings


def expected_cost(settings: SamplerSettings, backbone: Backbone) -> float:
    """Denoiser evaluations a sample that `draw` counts for these settings (a backward pass counts as two).

    Args:
        settings: How samples are drawn. Whole particle groups are asked for; what is drawn for nobody costs more.
        backbone: Decides how many steps the respaced chain has, and what a second stage adds.

    Raises:
        ValueError: The backbone's chain is too short for the steps.
    """
    schedule, methods = backbone.schedule.respaced(settings.steps), settings.guidance
    starts = [step for method in methods if (step := method.first_step(schedule)) is not None]
    first = starts[0] if starts else schedule.num_steps - 1
    predictions = sum(
        1.0 + sum(method.extra_evaluations(step, schedule.num_steps) for method in methods) for step in range(first + 1)
    )
    return math.prod(method.calls for method in methods) * predictions + backbone.finish_evaluations
