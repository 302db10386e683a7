"""The one training function of all arms.

Every random number of a training is drawn from its seed on the host before the first step: two arms with one seed begin
with the same weights, and the device never waits.

Shapes: N images, S steps, B images a step, H x W pixels, C channels, K classes.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minority.downstream.arms import Arm
from minority.downstream.data import DownstreamData, Float64, LabelledImages
from minority.downstream.losses import Loss, cross_entropy, loss_of
from minority.downstream.mixing import JITTER_DRAWS, RANDAUGMENT_DRAWS, jitter, mixup, randaugment
from minority.downstream.networks import Classifier, build_network
from minority.downstream.sampling import balancing_odds, draw, odds_of
from minority.downstream.settings import DownstreamSettings

_PREDICT_BATCH = 1024  # images a forward pass; changes memory, not results
_CHUNK = 256  # steps whose random numbers travel to the device at once


@dataclass(frozen=True, eq=False)
class _Phase:
    """Some steps in a row: what is drawn, and what is minimised."""

    steps: int
    odds: Float64
    loss: Loss
    augmented: bool


def train(
    arm: Arm,
    data: DownstreamData,
    *,
    learning_rate: float,
    weight_decay: float,
    settings: DownstreamSettings,
    seed: int,
    device: torch.device | str = "cpu",
) -> Classifier:
    """Train one classifier by the recipe of an arm (its last layer is not refitted here).

    One learning-rate cycle spans all steps, so that real images that follow synthetic ones are met at falling rates.
    On the CPU the result is a function of the arguments and the number of threads.

    Args:
        arm: The recipe.
        data: Its training images and synthetic ones are used, nothing else.
        learning_rate: Peak of the one-cycle schedule, reached after a tenth of the steps.
        weight_decay: Of AdamW (decoupled).
        settings: The budget.
        seed: Decides start weights, draws and augmentation.
        device: Where to train.

    Returns:
        The network in eval mode, on `device`.

    Raises:
        ValueError: Where the arm's source of synthetic images is not in the data.
    """
    synthetic = _source(arm, data)
    images = np.concatenate([data.train.images, synthetic.images])
    labels = np.concatenate([data.train.labels, synthetic.labels])
    groups = np.concatenate([data.train.groups, synthetic.groups])
    network = build_network(
        settings.network, image_shape=images.shape[1:], num_classes=len(data.class_names), seed=seed
    ).to(device)
    network = network.to(memory_format=torch.channels_last)
    pixels = torch.as_tensor(images, device=device)  # uint8
    classes, members = torch.as_tensor(labels, device=device), torch.as_tensor(groups, device=device)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=pixels.is_cuda or None
    )
    # One step more than is taken, so that every step taken has a rate above the schedule's floor.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=settings.steps + 1, pct_start=0.1
    )
    generator = torch.Generator().manual_seed(seed)
    mixing = np.random.default_rng(seed)
    network.train()
    for phase in _phases(arm, data, synthetic, steps=settings.steps, device=device):
        for start in range(0, phase.steps, _CHUNK):
            steps, size = min(_CHUNK, phase.steps - start), settings.batch_size
            chosen = draw(phase.odds, steps=steps, batch_size=size, generator=generator).to(device)
            uniform = torch.rand((steps, size, JITTER_DRAWS + RANDAUGMENT_DRAWS), generator=generator).to(device)
            alpha = arm.mixup or 1.0
            shares = torch.as_tensor(mixing.beta(alpha, alpha, size=steps), dtype=torch.float32, device=device)
            for step in range(steps):
                batch = to_unit_range(pixels[chosen[step]])
                target = F.one_hot(classes[chosen[step]], len(data.class_names)).float()
                batch = jitter(batch, uniform[step, :, :JITTER_DRAWS], settings=settings.jitter)
                if phase.augmented and arm.randaugment is not None:
                    batch = randaugment(batch, uniform[step, :, JITTER_DRAWS:], magnitude=arm.randaugment)
                if phase.augmented and arm.mixup is not None:
                    batch, target = mixup(batch, target, shares[step])
                with torch.autocast(pixels.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
                    logits = network(batch.contiguous(memory_format=torch.channels_last))
                loss = phase.loss(logits.float(), target, members[chosen[step]])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return network.eval()


@torch.no_grad()
def probabilities_and_features(network: Classifier, images: LabelledImages) -> tuple[Tensor, Tensor]:
    """What a trained network makes of images.

    Returns:
        (N, K) float64 probabilities and (N, D) float32 features, on the network's device.
    """
    network.eval()
    device = next(network.parameters()).device
    found = [
        network.trunk(
            to_unit_range(torch.as_tensor(images.images[start : start + _PREDICT_BATCH], device=device)).contiguous(
                memory_format=torch.channels_last
            )
        )
        for start in range(0, len(images), _PREDICT_BATCH)
    ]
    features = torch.cat(found) if found else torch.empty((0, network.head.in_features), device=device)
    return network.head(features).double().softmax(dim=1), features


def to_unit_range(pixels: Tensor) -> Tensor:
    """Turn uint8 (N, H, W, C) into float (N, C, H, W) in [-1, 1]."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def _source(arm: Arm, data: DownstreamData) -> LabelledImages:
    if arm.source is None:
        return data.train.subset(np.zeros(0, dtype=np.int64))
    if arm.source not in data.synthetic:
        raise ValueError(
            f"arm {arm.name!r} needs synthetic images of source {arm.source!r}; "
            f"there are {', '.join(data.synthetic) or 'none'}."
        )
    return data.synthetic[arm.source]


def _phases(
    arm: Arm, data: DownstreamData, synthetic: LabelledImages, *, steps: int, device: torch.device | str
) -> list[_Phase]:
    num_real, num_synthetic = len(data.train), len(synthetic)
    odds = odds_of(arm, data.train.groups, num_synthetic=num_synthetic)
    loss = loss_of(
        arm,
        labels=np.concatenate([data.train.labels, synthetic.labels]),
        odds=odds,
        num_classes=len(data.class_names),
        num_groups=len(data.group_names),
        device=device,
    )
    first = round(arm.synthetic_first * steps) if num_synthetic else 0
    alone = np.concatenate([np.zeros(num_real), balancing_odds(synthetic.groups)])
    phases = [_Phase(first, alone, cross_entropy, False), _Phase(steps - first, odds, loss, True)]
    return [phase for phase in phases if phase.steps]
