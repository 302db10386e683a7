"""The one training function of all arms.

Every random number of a training is drawn from its seed on the host before the first step: two arms with one seed begin
with the same weights, and the device never waits.

Shapes: N images, S steps, B images a step, H x W pixels, C channels, K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from minority.classifier import balancing_odds
from minority.downstream.arms import Arm
from minority.downstream.data import DownstreamData, Float64, LabelledImages
from minority.downstream.losses import Loss, cross_entropy, loss_of
from minority.downstream.mixing import JITTER_DRAWS, RANDAUGMENT_DRAWS, jitter, mixup, randaugment
from minority.downstream.networks import Classifier, build_network
from minority.downstream.repeated import repeat
from minority.downstream.sampling import draw, odds_of
from minority.downstream.settings import DownstreamSettings

_PREDICT_BATCH = 1024  # images a forward pass; changes memory, not results


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
    network = build_network(
        settings.network, image_shape=data.train.images.shape[1:], num_classes=len(data.class_names), seed=seed
    ).to(device)
    network = network.to(memory_format=torch.channels_last)
    run = _Run(arm, data, synthetic, network, settings=settings, device=torch.device(device))
    generator, mixing = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    rates = one_cycle(settings.steps, peak=learning_rate)
    optimizer = torch.optim.AdamW(
        network.parameters(),
        # On a GPU the rate is a tensor, which the recorded step reads anew each time.
        lr=torch.tensor(float(rates[0]), device=device) if run.on_gpu else rates[0],
        weight_decay=weight_decay,
        fused=run.on_gpu or None,
        capturable=run.on_gpu,
    )
    network.train()
    done = 0
    for phase in _phases(arm, data, synthetic, steps=settings.steps, device=device):
        tables = run.tables(phase, rates=rates[done : done + phase.steps], generator=generator, mixing=mixing)
        repeat(run.step(phase, tables, optimizer), times=phase.steps, device=run.device, record=settings.record_steps)
        done += phase.steps
    return network.eval()


def one_cycle(steps: int, *, peak: float) -> Float64:
    """Learning rates (S,) that rise for a tenth of the steps and fall for the rest, by cosines (Smith & Topin 2018).

    They start at peak / 25 and end just above peak / 250,000.
    """
    low, lowest, top = peak / 25, peak / 250_000, 0.1 * (steps + 1) - 1
    at = np.arange(steps, dtype=np.float64)
    rising = low + (peak - low) * (1 - np.cos(np.pi * at / top)) / 2 if top > 0 else np.full(steps, peak)
    falling = lowest + (peak - lowest) * (1 + np.cos(np.pi * (at - top) / (steps - top))) / 2
    return np.asarray(np.where(at <= top, rising, falling))


@dataclass(frozen=True, eq=False)
class _Tables:
    """What changes from step to step, drawn beforehand: S rows each, on the device."""

    chosen: Tensor  # (S, B) positions of images
    uniform: Tensor  # (S, B, draws) in [0, 1)
    shares: Tensor  # (S,) of mixup
    rates: Tensor  # (S,) learning rates
    counter: Tensor  # (1,) the step that comes next


class _Run:
    """The images on the device, and a step of the training on them."""

    def __init__(
        self,
        arm: Arm,
        data: DownstreamData,
        synthetic: LabelledImages,
        network: Classifier,
        *,
        settings: DownstreamSettings,
        device: torch.device,
    ) -> None:
        self.arm, self.network, self.settings, self.device = arm, network, settings, device
        self.on_gpu = device.type == "cuda"
        self._pixels = torch.as_tensor(np.concatenate([data.train.images, synthetic.images]), device=device)
        labels = torch.as_tensor(np.concatenate([data.train.labels, synthetic.labels]))
        self._targets = torch.eye(len(data.class_names))[labels].to(device)  # (N, K)
        self._groups = torch.as_tensor(np.concatenate([data.train.groups, synthetic.groups]), device=device)

    def tables(
        self, phase: "_Phase", *, rates: Float64, generator: torch.Generator, mixing: np.random.Generator
    ) -> _Tables:
        size, alpha = self.settings.batch_size, self.arm.mixup or 1.0
        chosen = draw(phase.odds, steps=phase.steps, batch_size=size, generator=generator)
        draws = JITTER_DRAWS + (RANDAUGMENT_DRAWS if self.arm.randaugment is not None else 0)
        uniform = torch.rand((phase.steps, size, draws), generator=generator)
        shares = torch.as_tensor(mixing.beta(alpha, alpha, size=phase.steps), dtype=torch.float32)
        return _Tables(
            chosen=chosen.to(self.device),
            uniform=uniform.to(self.device),
            shares=shares.to(self.device),
            rates=torch.as_tensor(rates, dtype=torch.float32).to(self.device),
            counter=torch.zeros(1, dtype=torch.int64, device=self.device),
        )

    def step(self, phase: "_Phase", tables: _Tables, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
        arm, settings = self.arm, self.settings

        def take() -> None:
            now = tables.counter
            chosen, uniform = tables.chosen[now][0], tables.uniform[now][0]
            images, targets = to_unit_range(self._pixels[chosen]), self._targets[chosen]
            images = jitter(images, uniform[:, :JITTER_DRAWS], settings=settings.jitter)
            if phase.augmented and arm.randaugment is not None:
                images = randaugment(images, uniform[:, JITTER_DRAWS:], magnitude=arm.randaugment)
            if phase.augmented and arm.mixup is not None:
                images, targets = mixup(images, targets, tables.shares[now])
            with torch.autocast(self.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
                logits = self.network(images.contiguous(memory_format=torch.channels_last))
            loss = phase.loss(logits.float(), targets, self._groups[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            rate = tables.rates[now][0]
            for group in optimizer.param_groups:
                if self.on_gpu:
                    group["lr"].copy_(rate)
                else:
                    group["lr"] = float(rate)
            optimizer.step()
            tables.counter.add_(1)

        return take


@torch.no_grad()
def probabilities_and_features(network: Classifier, images: LabelledImages) -> tuple[Tensor, Tensor]:
    """What a trained network makes of images.

    Returns:
        (N, K) float64 probabilities and (N, D) float32 features, on the network's device.
    """
    network.eval()
    device = next(network.parameters()).device
    batches = [
        network.trunk(
            to_unit_range(torch.as_tensor(images.images[start : start + _PREDICT_BATCH], device=device)).contiguous(
                memory_format=torch.channels_last
            )
        )
        for start in range(0, len(images), _PREDICT_BATCH)
    ]
    features = torch.cat(batches) if batches else torch.empty((0, network.head.in_features), device=device)
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
