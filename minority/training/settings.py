"""How a backbone is trained: every knob of the loop, checked at birth."""

from dataclasses import dataclass, field
from typing import Literal

from minority.backbones.backbone import Precision
from minority.training.augmentation import AffineAugmentation
from minority.training.averages import LONGEST


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a backbone is trained.

    Attributes:
        steps: Optimiser steps, at least 1.
        batch_size: Images a step over all processes and parts, drawn with replacement; at least 1.
        accumulate: Parts in which each process passes its share of a batch through the network: less memory, more
            time, the same gradient. At least 1; divides the batch.
        learning_rate: Peak rate of AdamW, above 0; warmed up over the first `warmup` steps, then falling to 0 by a
            cosine.
        warmup: Steps of linear warm-up, at least 0.
        weight_decay: Decoupled weight decay, at least 0.
        ema_decay: Decay of the averaged weights, which are the ones that are kept; in [0, 1). It grows into this
            value over the first steps, so that the average does not remember the initial weights.
        average_lengths: Further averages to keep beside that one, by power-function profiles (Karras et al. 2024,
            EDM2), so that the length can be chosen afterwards. Each is the profile's standard deviation as a share of
            the run, above 0 and below 0.288; 0.05 and 0.1 are usual.
        class_balance: 0 draws images as they are, 1 draws classes equally often; between, the weight of an image of
            class c is count_c ** -class_balance. In [0, 1].
        label_dropout: Share of images whose label is left out, in [0, 1). Above 0 the network needs one class
            embedding more, the last, which then stands for "no label": classifier-free guidance needs it.
        condition_dropout: Of a network with several conditions (minority/backbones/factors.py): share of images for
            which each is left out on its own, one number a condition, or one for all; in [0, 1). There, `label_dropout`
            is the share of images of which nothing is told.
        prediction: What the network predicts: "epsilon", the noise; or "v_prediction", the velocity
            sqrt(abar) noise - sqrt(1 - abar) image (Salimans & Ho 2022), which also teaches the mean colour of large
            images where hardly anything but noise is left.
        min_snr_gamma: Caps the weight of the nearly clean timesteps (Hang et al. 2023, min-SNR-gamma; 5 is usual),
            above 0. None weighs the squared errors of what is predicted alike.
        variance: "fixed", or "learned_range": the network also learns where the reverse variance lies between its
            bounds (Nichol & Dhariwal 2021, the hybrid loss), and has twice as many output as image channels.
        gradient_clip: Largest gradient norm, above 0.
        augmentation: Mild affine changes, or None.
        precision: Of the network's arithmetic; weights, loss and averages are fp32. "fp16" scales the loss.
        channels_last: Lay tensors out channels last, which suits convolutions on some devices.
        compile: Compile the network (torch.compile). Costs minutes once, and a C++ compiler on the CPU.
        seed: Decides batches, augmentation, noise and dropout, at least 0. The initial weights are the caller's.
        checkpoint_every: Steps between checkpoints, at least 1.
    """

    steps: int = 2000
    batch_size: int = 128
    accumulate: int = 1
    learning_rate: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.01
    ema_decay: float = 0.995
    average_lengths: tuple[float, ...] = ()
    class_balance: float = 0.5
    label_dropout: float = 0.0
    condition_dropout: tuple[float, ...] = (0.1,)
    prediction: Literal["epsilon", "v_prediction"] = "epsilon"
    min_snr_gamma: float | None = None
    variance: Literal["fixed", "learned_range"] = "fixed"
    gradient_clip: float = 1.0
    augmentation: AffineAugmentation | None = field(default_factory=AffineAugmentation)
    precision: Precision = "fp32"
    channels_last: bool = False
    compile: bool = False
    seed: int = 0
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "checkpoint_every"):
            self._require(name, getattr(self, name) >= 1, "be at least 1")
        for name in ("warmup", "weight_decay", "seed"):
            self._require(name, getattr(self, name) >= 0, "not be negative")
        for name in ("learning_rate", "gradient_clip"):
            self._require(name, getattr(self, name) > 0, "be positive")
        self._require("accumulate", self.batch_size % self.accumulate == 0, f"divide the batch of {self.batch_size}")
        self._require("ema_decay", 0 <= self.ema_decay < 1, "lie in [0, 1)")
        self._require("class_balance", 0 <= self.class_balance <= 1, "lie in [0, 1]")
        self._require("label_dropout", 0 <= self.label_dropout < 1, "lie in [0, 1)")
        shares = self.condition_dropout
        self._require("condition_dropout", bool(shares) and all(0 <= x < 1 for x in shares), "lie in [0, 1)")
        self._require("min_snr_gamma", self.min_snr_gamma is None or self.min_snr_gamma > 0, "be positive, or None")
        self._require("precision", self.precision in ("fp32", "bf16", "fp16"), "be fp32, bf16 or fp16")
        self._require("prediction", self.prediction in ("epsilon", "v_prediction"), "be epsilon or v_prediction")
        self._require("variance", self.variance in ("fixed", "learned_range"), "be fixed or learned_range")
        lengths = self.average_lengths
        self._require("average_lengths", all(0 < x < LONGEST for x in lengths), f"lie above 0 and below {LONGEST:.3f}")
        self._require("average_lengths", len(set(lengths)) == len(lengths), "differ from one another")

    def _require(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise ValueError(f"TrainingSettings.{name} must {rule}, got {getattr(self, name)}.")
