"""The budget of a comparison: the same for every arm.

Shapes: H x W pixels.
"""

from dataclasses import dataclass, field
from typing import Literal

NetworkKind = Literal["small-cnn", "resnet18", "resnet50", "vit-tiny", "vit-small"]


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """Which classifier is trained.

    Attributes:
        kind: "small-cnn" for tiny images; "resnet18" and "resnet50" (He et al. 2016) by torchvision; "vit-tiny" and
            "vit-small" (Dosovitskiy et al. 2021, Touvron et al. 2021) by timm.
        width: Channels of the first stage of "small-cnn", >= 1.
        weights: Local file with pretrained weights, a state dict (.pt, .pth) or safetensors; None starts from scratch.
            The last layer is always new. Nothing is downloaded.
        input_size: Side in pixels that images are brought to, >= 8; None keeps theirs. Pretrained weights expect the
            size they were trained at, mostly 224.
    """

    kind: NetworkKind = "small-cnn"
    width: int = 32
    weights: str | None = None
    input_size: int | None = None

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"NetworkSettings.width must be at least 1, got {self.width}.")
        if self.input_size is not None and self.input_size < 8:
            raise ValueError(f"NetworkSettings.input_size must be at least 8 pixels, got {self.input_size}.")
        if self.kind == "small-cnn" and self.weights is not None:
            raise ValueError(f"NetworkSettings.weights are for ResNets and ViTs, got {self.weights} for small-cnn.")


@dataclass(frozen=True, kw_only=True)
class Jitter:
    """Random movement of every training image, in all arms alike.

    Attributes:
        shift: Largest shift along each axis, as a share of the side, in [0, 1).
        rotation: Largest rotation in degrees, in [0, 180].
        flip: Mirror half of the images left to right. Right for photographs, wrong for digits.
    """

    shift: float = 0.06
    rotation: float = 10.0
    flip: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.shift < 1:
            raise ValueError(f"Jitter.shift must lie in [0, 1), got {self.shift}.")
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"Jitter.rotation must lie in [0, 180] degrees, got {self.rotation}.")


@dataclass(frozen=True, kw_only=True)
class DownstreamSettings:
    """How every arm is trained and tuned.

    Attributes:
        network: The classifier.
        steps: Optimiser steps of a training, >= 1, pretraining on synthetic images included.
        batch_size: Images a step, >= 2, drawn with replacement.
        learning_rates: Peaks of the one-cycle schedule (Smith & Topin 2018) that trials may use, each > 0, falling in
            order of preference: arms with a strength of their own try the first ones only.
        weight_decays: Decoupled weight decays (AdamW) that trials may use, each >= 0, in order of preference.
        trials: Trials of every arm, >= 1.
        tuning_seeds: Trainings of a trial, >= 1; their seeds are others than those that are tested.
        chosen_by: What trials and arms are chosen by on validation images: accuracy in the worst group, or its mean
            over groups, which few validation images a group tell more surely. The other one breaks ties.
        jitter: Augmentation of all arms.
        precision: "fp32", or "bf16" for the network's activations, on a GPU.
        record_steps: Record a step as a CUDA graph instead of launching it kernel by kernel; changes time, not results.
    """

    network: NetworkSettings = field(default_factory=NetworkSettings)
    steps: int = 300
    batch_size: int = 64
    learning_rates: tuple[float, ...] = (3e-3, 1e-3)
    weight_decays: tuple[float, ...] = (0.3, 0.03)
    trials: int = 4
    tuning_seeds: int = 2
    chosen_by: Literal["worst_group", "balanced"] = "worst_group"
    jitter: Jitter = field(default_factory=Jitter)
    precision: Literal["fp32", "bf16"] = "fp32"
    record_steps: bool = True

    def __post_init__(self) -> None:
        for name in ("steps", "trials", "tuning_seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"DownstreamSettings.{name} must be at least 1, got {getattr(self, name)}.")
        if self.batch_size < 2:
            raise ValueError(f"DownstreamSettings.batch_size must be at least 2, got {self.batch_size}.")
        if not self.learning_rates or min(self.learning_rates) <= 0:
            raise ValueError(f"DownstreamSettings.learning_rates must all be above 0, got {self.learning_rates}.")
        if not self.weight_decays or min(self.weight_decays) < 0:
            raise ValueError(f"DownstreamSettings.weight_decays must all be at least 0, got {self.weight_decays}.")
        if self.trials > len(self.learning_rates) * len(self.weight_decays):
            raise ValueError(
                f"DownstreamSettings.trials is {self.trials}, but {len(self.learning_rates)} learning rates and "
                f"{len(self.weight_decays)} weight decays make fewer different trials; add some, or try less."
            )
