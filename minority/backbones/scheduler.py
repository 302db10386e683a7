"""The noise that a diffusers pipeline was trained on, as its scheduler's config tells.

How a scheduler spaces its steps when it samples is of no interest here: our samplers space their own.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import diffusers
import numpy as np

from minority.backbones.backbone import BackboneError
from minority.backbones.karras import karras_schedule
from minority.backbones.network import PredictionType, VarianceType, require_prediction_type
from minority.diffusion.schedule import NoiseSchedule

Family = Literal["numbered", "ve", "vp", "edm"]

#: Schedulers for networks that were trained on numbered noise levels; they differ in how they sample alone.
_NUMBERED = (
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "PNDMScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DPMSolverSDEScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "SASolverScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "LMSDiscreteScheduler",
)
_BY_SIGMA: dict[str, Family] = {
    "ScoreSdeVeScheduler": "ve",
    "ScoreSdeVpScheduler": "vp",
    "EDMEulerScheduler": "edm",
    "EDMDPMSolverMultistepScheduler": "edm",
}
_MOST_TIMESTEPS = 1_000_000
_REFUSED = {
    "rescale_betas_zero_snr": "use another model",
    "thresholding": "set it to false to clip to a fixed range instead",
    "use_flow_sigmas": "flow matching is another process",
}


@dataclass(frozen=True, eq=False)
class TrainedNoise:
    """What a scheduler's config says about the training.

    Attributes:
        family: Whether the network was trained on "numbered" noise levels, or by standard deviation: the variance
            exploding ("ve") or preserving ("vp") processes of Song et al. (2021), or "edm" (Karras et al. 2022).
        schedule: All noise levels.
        prediction_type: What the network predicts.
        bound: Largest absolute value of a clean state, to which the scheduler clips; None where it does not.
        config: The scheduler's whole config, defaults included.
    """

    family: Family
    schedule: NoiseSchedule
    prediction_type: PredictionType
    bound: float | None
    config: Mapping[str, Any]

    @property
    def variance_type(self) -> VarianceType:
        """How a learned variance is learned."""
        return "learned" if self.config.get("variance_type") == "learned" else "learned_range"


def read_scheduler(config: Mapping[str, Any], *, source: Path) -> TrainedNoise:
    """Understand a scheduler_config.json.

    Args:
        config: Its content.
        source: Its path, for messages.

    Raises:
        BackboneError: For a scheduler or a setting of it that is not supported.
    """
    name = str(config.get("_class_name", "DDPMScheduler"))
    if name not in (*_NUMBERED, *_BY_SIGMA):
        raise BackboneError(
            f"{source} is of a {name}, which tells no noise levels that are known here; supported are "
            f"{', '.join((*_NUMBERED, *_BY_SIGMA))}."
        )
    full = _defaults(name) | dict(config)
    for setting, remedy in _REFUSED.items():
        if full.get(setting):
            raise BackboneError(f"{source} asks for {setting}, which is not supported; {remedy}.")
    steps = full.get("num_train_timesteps")
    if not isinstance(steps, int) or not 1 <= steps <= _MOST_TIMESTEPS:
        raise BackboneError(f"{source}: num_train_timesteps must be 1 ... {_MOST_TIMESTEPS}, got {steps!r:.60}.")
    family: Family = _BY_SIGMA.get(name, "numbered")
    prediction_type = full.get("prediction_type", "epsilon")
    try:
        require_prediction_type(prediction_type)
        schedule = _SCHEDULES[family](full)
    except ValueError as error:
        raise BackboneError(f"{source}: {error}") from error
    except (TypeError, OverflowError) as error:
        raise BackboneError(f"{source} has a number that is none ({error}); correct it.") from error
    bound = float(full.get("clip_sample_range", 1.0)) if full.get("clip_sample") else None
    schedule = replace(schedule, steps_offset=int(full.get("steps_offset") or 0))
    return TrainedNoise(family, schedule, prediction_type, bound, full)


def _defaults(name: str) -> dict[str, Any]:
    """What a scheduler takes for settings that its config leaves out, as files of older versions do."""
    scheduler = getattr(diffusers, name, None)
    if scheduler is None:  # not exported any more, but still read
        return {"num_train_timesteps": 2000, "beta_min": 0.1, "beta_max": 20.0, "sampling_eps": 1e-3}
    parameters = inspect.signature(scheduler.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def _numbered(config: Mapping[str, Any]) -> NoiseSchedule:
    if config.get("timestep_type", "discrete") != "discrete":
        raise BackboneError("timestep_type must be discrete; continuous timesteps are not supported.")
    num_steps, start, end = int(config["num_train_timesteps"]), float(config["beta_start"]), float(config["beta_end"])
    kind = config["beta_schedule"]
    if config.get("trained_betas") is not None:
        return NoiseSchedule.from_betas(np.array(config["trained_betas"], dtype=np.float64))
    if kind == "linear":
        return NoiseSchedule.from_betas(np.linspace(start, end, num_steps, dtype=np.float64))
    if kind == "scaled_linear":
        return NoiseSchedule.from_betas(np.linspace(start**0.5, end**0.5, num_steps, dtype=np.float64) ** 2)
    if kind == "squaredcos_cap_v2":
        return NoiseSchedule.cosine(num_steps)
    raise BackboneError(
        f"beta_schedule {kind!r} is not supported; it must be linear, scaled_linear or squaredcos_cap_v2, or give "
        "trained_betas."
    )


def _variance_exploding(config: Mapping[str, Any]) -> NoiseSchedule:
    # Its images lie in [0, 1], ours in [-1, 1]: the noise is twice as strong here.
    low, high = 2 * float(config["sigma_min"]), 2 * float(config["sigma_max"])
    return _of_sigma(low * (high / low) ** _times(config))


def _variance_preserving(config: Mapping[str, Any]) -> NoiseSchedule:
    low, high, time = float(config["beta_min"]), float(config["beta_max"]), _times(config)
    abar = np.exp(-0.5 * time**2 * (high - low) - time * low)
    return NoiseSchedule(abar=abar, timesteps=np.arange(len(abar)))


def _edm(config: Mapping[str, Any]) -> NoiseSchedule:
    low, high, num_steps = float(config["sigma_min"]), float(config["sigma_max"]), int(config["num_train_timesteps"])
    if config["sigma_schedule"] == "exponential":
        return _of_sigma(low * (high / low) ** np.linspace(0, 1, num_steps))
    return karras_schedule(num_steps, sigma_min=low, sigma_max=high, rho=float(config["rho"]))


def _of_sigma(sigma: np.ndarray) -> NoiseSchedule:
    return NoiseSchedule(abar=1 / (1 + sigma**2), timesteps=np.arange(len(sigma)))


def _times(config: Mapping[str, Any]) -> np.ndarray:
    """(T,) the continuous times of a stochastic differential equation, in (0, 1]."""
    return np.linspace(float(config["sampling_eps"]), 1, int(config["num_train_timesteps"]))


_SCHEDULES = {"numbered": _numbered, "ve": _variance_exploding, "vp": _variance_preserving, "edm": _edm}
