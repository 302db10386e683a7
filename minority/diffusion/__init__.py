"""The mathematics of a chain: schedule, denoiser contract, noise, estimate, minority metric and scores."""

from typing import TYPE_CHECKING

from minority._exports import exported_from

if TYPE_CHECKING:
    from minority.diffusion.chain import Chain, Cost, Estimate
    from minority.diffusion.denoiser import Denoiser, Prediction
    from minority.diffusion.noise import NoiseSource, SampleNoise
    from minority.diffusion.pixels import from_pixels, to_pixels
    from minority.diffusion.schedule import NoiseSchedule
    from minority.diffusion.score import NegativeElbo, minority_score, negative_elbo
    from minority.diffusion.space import StateSpace

__all__ = [
    "Chain",
    "Cost",
    "Denoiser",
    "Estimate",
    "NegativeElbo",
    "NoiseSchedule",
    "NoiseSource",
    "Prediction",
    "SampleNoise",
    "StateSpace",
    "from_pixels",
    "minority_score",
    "negative_elbo",
    "to_pixels",
]

__getattr__ = exported_from(__file__)
