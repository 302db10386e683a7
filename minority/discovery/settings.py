"""How hidden groups are looked for.

Shapes: none.
"""

from dataclasses import dataclass, field
from typing import Literal

from minority.downstream.settings import DownstreamSettings, Jitter, NetworkSettings

Method = Literal["cross_fitted", "early", "amplifier"]


def _budget() -> DownstreamSettings:
    return DownstreamSettings(
        network=NetworkSettings(width=8),
        steps=300,
        learning_rates=(3e-3,),
        weight_decays=(0.03,),
        trials=1,
        jitter=Jitter(rotation=0, flip=False),
    )


@dataclass(frozen=True, kw_only=True)
class DiscoverySettings:
    """Which biased models are trained, and on what.

    Attributes:
        method: "cross_fitted": models that learn what is easy, each image judged by those that have not seen it.
            "early": models stopped early, each image judged by all (the errors of Just Train Twice, Liu et al. 2021).
            "amplifier": models trained on plain samples of the preset's backbone, whose own bias is stronger than that
            of the images (Diffusing DeBias, Ciranni et al. 2024); each image judged by all.
        models: Models, >= 1, or rounds of cross-fitting, whose answers are averaged.
        folds: Parts that a round of cross-fitting divides every class into, >= 2; a model is trained on all but one.
        q: Of the generalised cross-entropy that they learn by (Zhang & Sabuncu 2018), in (0, 1]; Nam et al. (2020) take
            0.7.
        early_steps: Optimiser steps of a model that is stopped early, >= 1.
        samples_per_class: Plain samples a class for the amplifier, >= 2.
        sampler_steps: Denoiser evaluations a sample of them, >= 2.
        smallest_cluster: Conflicting images of a class that make a cluster of their own, >= 1.
        budget: Network, steps and batches of a model; the first of its learning rates and weight decays are used.
        seed: Decides folds, start weights, draws and samples; >= 0.
    """

    method: Method = "cross_fitted"
    models: int = 3
    folds: int = 2
    q: float = 0.7
    early_steps: int = 60
    samples_per_class: int = 200
    sampler_steps: int = 30
    smallest_cluster: int = 3
    budget: DownstreamSettings = field(default_factory=_budget)
    seed: int = 0

    def __post_init__(self) -> None:
        rules = {
            "models": (self.models >= 1, "at least 1"),
            "folds": (self.folds >= 2, "at least 2"),
            "q": (0 < self.q <= 1, "in (0, 1]"),
            "early_steps": (self.early_steps >= 1, "at least 1"),
            "samples_per_class": (self.samples_per_class >= 2, "at least 2"),
            "sampler_steps": (self.sampler_steps >= 2, "at least 2"),
            "smallest_cluster": (self.smallest_cluster >= 1, "at least 1"),
            "seed": (self.seed >= 0, "at least 0"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise ValueError(f"DiscoverySettings.{name} must be {rule}, got {getattr(self, name)}.")
