"""Drawing samples: the loop, its settings, a batch, an edit, two stages."""

from typing import TYPE_CHECKING

from minority._exports import exported_from

if TYPE_CHECKING:
    from minority.sampling.cost import expected_cost
    from minority.sampling.draw import Drawn, Scores, ScoreSettings, draw_images, score_images
    from minority.sampling.edit import EditSettings, edit_images
    from minority.sampling.named_samplers import NAMED_SAMPLERS, NamedSampler, compare, contact_sheet, named_sampler
    from minority.sampling.sampler import sample
    from minority.sampling.settings import SamplerSettings
    from minority.sampling.two_stage import UpsamplerSettings, join_stages

__all__ = [
    "NAMED_SAMPLERS",
    "Drawn",
    "EditSettings",
    "NamedSampler",
    "SamplerSettings",
    "ScoreSettings",
    "Scores",
    "UpsamplerSettings",
    "compare",
    "contact_sheet",
    "draw_images",
    "edit_images",
    "expected_cost",
    "join_stages",
    "named_sampler",
    "sample",
    "score_images",
]

__getattr__ = exported_from(__file__)
