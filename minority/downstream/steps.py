"""The steps of a training: what each of them draws, how it augments, and what it minimises.

Every random number is drawn on the host before the first step, so that the device never waits.

Shapes: N images, S steps, B images a step, H x W pixels, C channels, K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from minority.downstream.arms import Arm
from minority.downstream.data import Float64, Int64, LabelledImages
from minority.downstream.losses import Loss
from minority.downstream.mixing import JITTER_DRAWS, RANDAUGMENT_DRAWS, jitter, mixup, randaugment
from minority.downstream.networks import Classifier
from minority.downstream.objectives import Adversarial, LearningFromFailure, Objective, OneNetwork
from minority.downstream.sampling import draw
from minority.downstream.selective_mixing import draw_partners, draw_shares
from minority.downstream.settings import DownstreamSettings
from minority.downstream.statistics_mixing import FEATURE_MAPS, FeatureMixing, mix_statistics
from minority.runtime.image_arrays import Images, join

_LISA_STREAM, _STYLE_STREAM = 1, 2  # of the random numbers that only some arms draw


@dataclass(frozen=True, eq=False)
class Phase:
    """Some steps in a row: what is drawn, and what is minimised."""

    steps: int
    odds: Float64
    loss: Loss
    augmented: bool


@dataclass(frozen=True, eq=False)
class Tables:
    """What changes from step to step, drawn beforehand: S rows each, on the device."""

    chosen: Tensor  # (S, B) positions of images
    uniform: Tensor  # (S, B, draws) in [0, 1)
    shares: Tensor  # (S,) of mixup
    partners: Tensor  # (S, B) positions of LISA's, or (S, 0)
    partner_shares: Tensor  # (S, B) of LISA, or (S, 0)
    styles: Tensor  # (S, maps, B) of MixStyle: the pixels', then the feature maps'
    rates: Tensor  # (S,) learning rates
    counter: Tensor  # (1,) the step that comes next


class Run:
    """The images, on the device where they are held in memory, and a step of the training on them.

    Args:
        arm: The recipe.
        real: Real training images.
        synthetic: Synthetic ones.
        network: The classifier that comes of it.
        answers: (N, K) targets of the real images; None where they are their labels.
        biased: The second network of learning from failure, else None.
        num_classes: K.
        settings: The budget.
        seed: Decides all that is random.
        device: Where to train.
    """

    def __init__(
        self,
        arm: Arm,
        real: LabelledImages,
        synthetic: LabelledImages,
        network: Classifier,
        *,
        answers: Float64 | None,
        biased: Classifier | None,
        num_classes: int,
        settings: DownstreamSettings,
        seed: int,
        device: torch.device,
    ) -> None:
        self.arm, self.settings, self.device, self._seed = arm, settings, device, seed
        self.on_gpu = device.type == "cuda"
        self._pixels = _Pixels(join([real.images, synthetic.images]), device=device)
        self._labels = np.concatenate([real.labels, synthetic.labels])
        # Losses are linear in the targets.
        weights = np.where(np.arange(len(self._labels)) < len(real), 1.0, arm.synthetic_weight)
        self._targets = _Targets(
            torch.as_tensor(self._labels, device=device),
            torch.as_tensor(weights, dtype=torch.float32, device=device),
            num_classes=num_classes,
            answers=None if answers is None else torch.as_tensor(answers, dtype=torch.float32, device=device),
        )
        self._attributes = attributes_of(real, synthetic) if arm.needs_attributes else None
        by_attribute = arm.loss == "attribute_adjusted" or arm.adversary is not None
        keys = self._attributes if by_attribute else np.concatenate([real.groups, synthetic.groups])
        self._keys = torch.as_tensor(keys, device=device)
        self.objective = self._objective(network, biased)
        self._now: Tables | None = None
        self.mixing = None if arm.feature_mixing is None else FeatureMixing(network, self._feature_shares)

    def tables(
        self, phase: Phase, *, rates: Float64, generator: torch.Generator, mixing: np.random.Generator
    ) -> Tables:
        """Draw all that the steps of a phase need."""
        size, alpha = self.settings.batch_size, self.arm.mixup or 1.0
        chosen = draw(phase.odds, steps=phase.steps, batch_size=size, generator=generator)
        draws = JITTER_DRAWS + (RANDAUGMENT_DRAWS if self.arm.randaugment is not None else 0)
        uniform = torch.rand((phase.steps, size, draws), generator=generator)
        shares = torch.as_tensor(mixing.beta(alpha, alpha, size=phase.steps), dtype=torch.float32)
        partners, partner_shares = self._partners(chosen)
        return Tables(
            chosen=chosen.to(self.device),
            uniform=uniform.to(self.device),
            shares=shares.to(self.device),
            partners=partners.to(self.device),
            partner_shares=partner_shares.to(self.device),
            styles=self._styles(phase, size).to(self.device),
            rates=torch.as_tensor(rates, dtype=torch.float32).to(self.device),
            counter=torch.zeros(1, dtype=torch.int64, device=self.device),
        )

    @property
    def can_be_recorded(self) -> bool:
        """Whether a step needs nothing of the host."""
        return self._pixels.are_held

    def step(self, phase: Phase, tables: Tables, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
        """One optimiser step, as a function that takes the next row of the tables."""
        self._now = tables

        def take() -> None:
            now = tables.counter
            chosen = tables.chosen[now][0]
            images, targets = self._batch(phase, tables)
            loss = self.objective(
                images.contiguous(memory_format=torch.channels_last), targets, self._keys[chosen], loss=phase.loss
            )
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

    def _batch(self, phase: Phase, tables: Tables) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) and targets (B, K) of the next step."""
        arm, now = self.arm, tables.counter
        chosen, uniform = tables.chosen[now][0], tables.uniform[now][0]
        images, targets = to_unit_range(self._pixels[chosen]), self._targets[chosen]
        if phase.augmented and arm.lisa is not None:
            partners, share = tables.partners[now][0], tables.partner_shares[now][0][:, None]
            others = to_unit_range(self._pixels[partners])
            images = share[:, :, None, None] * images + (1 - share[:, :, None, None]) * others
            targets = share * targets + (1 - share) * self._targets[partners]
        images = jitter(images, uniform[:, :JITTER_DRAWS], settings=self.settings.jitter)
        if phase.augmented and arm.randaugment is not None:
            images = randaugment(images, uniform[:, JITTER_DRAWS:], magnitude=arm.randaugment)
        if phase.augmented and arm.statistics_mixing is not None:
            images = mix_statistics(images, tables.styles[now][0][0])
        if phase.augmented and arm.mixup is not None:
            images, targets = mixup(images, targets, tables.shares[now])
        return images, targets

    def _objective(self, network: Classifier, biased: Classifier | None) -> Objective:
        half = self.settings.precision == "bf16"
        if self.arm.loss == "learning_from_failure":
            assert biased is not None, "a second network for learning from failure"
            return LearningFromFailure(network, biased, half=half, q=self.arm.q)
        if self.arm.adversary is not None:
            assert self._attributes is not None, "asked for before"
            return Adversarial(
                network,
                half=half,
                num_attributes=int(self._attributes.max()) + 1,
                strength=self.arm.adversary,
                seed=self._seed,
            )
        return OneNetwork(network, half=half)

    def _partners(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        if self.arm.lisa is None:
            nobody = torch.zeros((len(chosen), 0))
            return nobody.long(), nobody
        assert self._attributes is not None, "asked for before"
        rng = np.random.default_rng([self._seed, _LISA_STREAM])
        partners = draw_partners(
            chosen.numpy(), labels=self._labels, attributes=self._attributes, same_class=self.arm.lisa, rng=rng
        )
        shares = draw_shares((chosen.shape[0], chosen.shape[1]), rng=rng)
        return torch.as_tensor(partners), torch.as_tensor(shares)

    def _styles(self, phase: Phase, size: int) -> Tensor:
        """(S, maps, B); no maps where nothing is mixed, ones in a phase without augmentation."""
        steps = phase.steps
        alphas = [self.arm.statistics_mixing, *[self.arm.feature_mixing] * FEATURE_MAPS]
        if not any(alphas):
            return torch.zeros((steps, 0, size))
        if not phase.augmented:
            return torch.ones((steps, len(alphas), size))
        rng = np.random.default_rng([self._seed, _STYLE_STREAM])
        drawn = [np.ones((steps, size)) if a is None else rng.beta(a, a, size=(steps, size)) for a in alphas]
        return torch.as_tensor(np.stack(drawn, axis=1), dtype=torch.float32)

    def _feature_shares(self) -> Tensor:
        assert self._now is not None, "within a step"
        return self._now.styles[self._now.counter][0][1:]


class _Pixels:
    """Images on the device, all of them; or those that a step asks for, where they are too many to be held."""

    def __init__(self, images: Images, *, device: torch.device) -> None:
        self._images, self._device = images, device
        self._held = torch.as_tensor(images, device=device) if isinstance(images, np.ndarray) else None

    @property
    def are_held(self) -> bool:
        """Whether no step reads any."""
        return self._held is not None

    def __getitem__(self, chosen: Tensor) -> Tensor:
        if self._held is not None:
            return self._held[chosen]
        return torch.as_tensor(self._images[chosen.cpu().numpy()], device=self._device)


class _Targets:
    """Rows (B, K) of targets: the label, or what a teacher answered; times the image's weight."""

    def __init__(self, labels: Tensor, weights: Tensor, *, num_classes: int, answers: Tensor | None) -> None:
        self._labels, self._weights, self._rows = labels, weights, None
        self._one_hot = torch.eye(num_classes, device=labels.device)
        if answers is not None:
            self._rows = torch.cat([answers, self._one_hot[labels[len(answers) :]]])

    def __getitem__(self, chosen: Tensor) -> Tensor:
        rows = self._one_hot[self._labels[chosen]] if self._rows is None else self._rows[chosen]
        return rows * self._weights[chosen][:, None]


def to_unit_range(pixels: Tensor) -> Tensor:
    """Turn uint8 (N, H, W, C) into float (N, C, H, W) in [-1, 1]."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def attributes_of(real: LabelledImages, synthetic: LabelledImages) -> Int64 | None:
    """(N,) attributes of real, then synthetic images; None where one of the two has none."""
    if real.attributes is None or (synthetic.attributes is None and len(synthetic)):
        return None
    return real.attributes if synthetic.attributes is None else np.concatenate([real.attributes, synthetic.attributes])
