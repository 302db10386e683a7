"""What a recipe costs, in multiply-adds: to train once, to draw its images, and to classify one image.

A training step costs three forward passes, as usual: one forward, and a backward pass of twice that. Times differ from
machine to machine; multiply-adds do not, and say the same of every recipe.

Shapes: N images, D features, K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minority.downstream.arms import Arm
from minority.downstream.data import DownstreamData
from minority.downstream.networks import build_network
from minority.downstream.settings import DownstreamSettings

_PASSES_A_STEP = 3


@dataclass(frozen=True, kw_only=True)
class ArmCost:
    """Multiply-adds of one arm.

    Attributes:
        training: One training of the chosen trial, with what it asks a teacher or an encoder first.
        drawing: Its synthetic images, those included that were refused; 0 where it has none, NaN where not known.
        image: Classifying one image.
        evaluations: Evaluations of the diffusion network to classify one image; 0 of everything but zero-shot.
    """

    training: float
    drawing: float
    image: float
    evaluations: int = 0


def macs_of(call: Callable[[], object]) -> float:
    """Multiply-adds of a call's products and convolutions, gradients not counted."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 2


def image_macs(network: nn.Module, image_shape: tuple[int, int, int], *, device: torch.device | str = "cpu") -> float:
    """Multiply-adds of one image's forward pass.

    Args:
        network: (B, C, H, W) -> anything, in eval mode.
        image_shape: (C, H, W).
        device: Where the network is.
    """
    images = torch.zeros(1, *image_shape, device=device)
    return macs_of(lambda: network(images))


def cost_of(arm: Arm, data: DownstreamData, settings: DownstreamSettings) -> ArmCost:
    """What an arm costs on these images, by the counts of its networks.

    Args:
        arm: The recipe.
        data: The images; with a reading where the arm needs one.
        settings: The budget.
    """
    height, width, channels = data.train.images.shape[1:]
    classes, reading = len(data.class_names), data.reading
    drawn = 0 if arm.source is None else len(data.synthetic[arm.source])
    drawing = 0.0 if not drawn else float("nan")
    if reading is not None and arm.source is not None:
        drawing = reading.drawing_macs.get(arm.source, float("nan"))
    if not arm.uses_backbone or arm.learner == "distilled":
        network = build_network(
            settings.network, image_shape=(height, width, channels), num_classes=classes, seed=0
        ).eval()
        image = image_macs(network, (channels, height, width))
        training = _PASSES_A_STEP * image * settings.steps * settings.batch_size
        if arm.learner == "distilled" and reading is not None and reading.augmented is not None:
            training += len(reading.augmented) * reading.evaluations * reading.evaluation_macs
        return ArmCost(training=training, drawing=drawing, image=image)
    assert reading is not None, "checked when the arm was trained"
    if arm.learner == "zero_shot":
        return ArmCost(
            training=0.0,
            drawing=0.0,
            image=reading.evaluations * reading.evaluation_macs,
            evaluations=reading.evaluations,
        )
    head = classes * (
        reading.features_of("train").shape[1] if arm.learner == "linear_probe" else reading.encoder_features
    )
    image = reading.encoder_macs + head
    seen = len(data.train) + drawn if arm.learner == "linear_probe" else settings.steps * settings.batch_size
    passes = 1 if arm.learner == "linear_probe" else _PASSES_A_STEP
    return ArmCost(training=passes * image * seen, drawing=drawing, image=image)


def in_words(macs: float) -> str:
    """A number of multiply-adds, e.g. "402 M"; "0" for none, "-" where it is not known."""
    if macs != macs:
        return "-"
    for size, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if macs >= size:
            return f"{macs / size:.3g} {unit}"
    return f"{macs:.0f}"
