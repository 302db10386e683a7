"""How images are made and evaluated: schedules, denoisers, guidance, samplers, training, scores, selection,
classifiers.

Knows torch and numeric libraries; nothing of Prefect and nothing of how files are laid out on disk.
"""

from typing import TYPE_CHECKING

from minority._exports import exported_from

if TYPE_CHECKING:
    from minority.backbones.backbone import Backbone, BackboneError
    from minority.backbones.folder import save_folder
    from minority.backbones.loading import load_backbone
    from minority.backbones.own_model import OwnModel, entry_point
    from minority.diffusion.noise import SampleNoise
    from minority.diffusion.schedule import NoiseSchedule
    from minority.evaluation.metrics import SetMetrics, set_metrics
    from minority.evaluation.set_report import report_set
    from minority.features import ExtractorSettings, build_extractor
    from minority.guidance.boost_and_skip import BoostAndSkip
    from minority.guidance.method import Method
    from minority.guidance.prune_and_branch import PruneAndBranch
    from minority.guidance.registry import METHODS
    from minority.guidance.self_guidance import SelfGuidance
    from minority.neighbours.reference import RealReference
    from minority.sampling.draw import Drawn, Scores, ScoreSettings, draw, score_images
    from minority.sampling.named_samplers import NAMED_SAMPLERS, named_sampler
    from minority.sampling.sampler import sample
    from minority.sampling.settings import SamplerSettings
    from minority.selection.choice import choose
    from minority.selection.filter_building import build_filter
    from minority.selection.filter_contract import CandidateFilter, Verdicts
    from minority.selection.settings import HeldOutRules, SelectionSettings
    from minority.training.loop import train_denoiser
    from minority.training.settings import TrainingSettings

__all__ = [
    "METHODS",
    "NAMED_SAMPLERS",
    "Backbone",
    "BackboneError",
    "BoostAndSkip",
    "CandidateFilter",
    "Drawn",
    "ExtractorSettings",
    "HeldOutRules",
    "Method",
    "NoiseSchedule",
    "OwnModel",
    "PruneAndBranch",
    "RealReference",
    "SampleNoise",
    "SamplerSettings",
    "ScoreSettings",
    "Scores",
    "SelectionSettings",
    "SelfGuidance",
    "SetMetrics",
    "TrainingSettings",
    "Verdicts",
    "build_extractor",
    "build_filter",
    "choose",
    "draw",
    "entry_point",
    "load_backbone",
    "named_sampler",
    "report_set",
    "sample",
    "save_folder",
    "score_images",
    "set_metrics",
    "train_denoiser",
]

__getattr__ = exported_from(__file__)
