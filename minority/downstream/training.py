"""The one training function of all arms.

Every random number of a training is drawn from its seed on the host before the first step: two arms with one seed begin
with the same weights, and the device never waits (steps.py).

Shapes: N images, S steps, B images a step, H x W pixels, C channels, K classes.
"""

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from minority.classifier import balancing_odds
from minority.downstream.arms import Arm
from minority.downstream.backbone_outputs import BackboneReading
from minority.downstream.data import Bool, DownstreamData, Float64, LabelledImages
from minority.downstream.identification import errors_of, highest_of_class, losses_of, neighbour_distances
from minority.downstream.inferred_groups import ENVIRONMENTS, groups_of, infer_environments
from minority.downstream.losses import cross_entropy, loss_of
from minority.downstream.networks import Classifier, build_network, with_new_head
from minority.downstream.pretrained import distillation_set, reading_of
from minority.downstream.repeated import repeat
from minority.downstream.sampling import odds_of
from minority.downstream.settings import DownstreamSettings
from minority.downstream.steps import Phase, Run, attributes_of, to_unit_range

_PREDICT_BATCH = 1024  # images a forward pass; changes memory, not results
_EARLY_SEED, _BIASED_SEED = 2_000_000, 3_000_000  # added to the seed for networks that are thrown away


@dataclass(frozen=True, eq=False, kw_only=True)
class _Images:
    """What an arm is trained on, once it is known which images it draws more often, and what its groups are."""

    real: LabelledImages
    synthetic: LabelledImages
    identified: Bool | None
    num_classes: int
    num_groups: int
    answers: Float64 | None = None  # (N, K) targets of the real images, where they are not their labels
    reading: BackboneReading | None = None


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

    One learning-rate cycle spans all steps, so that real images that follow synthetic ones are met at falling rates. An
    early model has its share of the steps, and a cycle of its own, so that every arm takes equally many.
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
        ValueError: Where the arm's source of synthetic images is not in the data, or it needs attributes that are not
            known.
    """
    synthetic, answers = _source(arm, data), None
    if arm.learner == "distilled":
        augmented, answers = distillation_set(arm, data)
        data = replace(data, train=augmented)
    images = _Images(
        real=data.train,
        synthetic=synthetic,
        identified=None,
        num_classes=len(data.class_names),
        num_groups=len(data.group_names),
        answers=answers,
        reading=reading_of(arm, data) if arm.learner == "fine_tuned" else None,
    )
    _require_attributes(arm, images)
    cost = _Cost(learning_rate, weight_decay, settings, torch.device(device))
    steps = settings.steps
    if arm.draws == "neighbour_oversampled":
        distances = neighbour_distances(data.train.images, data.train.labels)
        images = replace(images, identified=highest_of_class(distances, data.train.labels, share=arm.top))
    if arm.has_early_model:
        early_steps = max(1, round(arm.early * steps))
        steps -= early_steps
        if steps < 1:
            raise ValueError(f"arm {arm.name!r} needs a step for its early model and one for its own, got 1 in all.")
        images = _told_by_early_model(arm, images, cost, steps=early_steps, seed=seed)
    return _fit(arm, images, cost, steps=steps, seed=seed)


@dataclass(frozen=True)
class _Cost:
    """What a training is given, and where it runs."""

    learning_rate: float
    weight_decay: float
    settings: DownstreamSettings
    device: torch.device


def _told_by_early_model(arm: Arm, images: _Images, cost: _Cost, *, steps: int, seed: int) -> _Images:
    """The images as a model sees them that is trained for a few steps on the real ones alone, and thrown away."""
    nothing = images.real.subset(np.zeros(0, dtype=np.int64))
    plain = replace(images, synthetic=nothing, answers=None, reading=None)
    early = _fit(Arm(name="early model"), plain, cost, steps=steps, seed=seed + _EARLY_SEED)
    probabilities = probabilities_and_features(early, images.real)[0].cpu().numpy()
    labels = images.real.labels
    if arm.draws == "loss_oversampled":
        chosen = highest_of_class(losses_of(probabilities, labels), labels, share=arm.top)
        images = replace(images, identified=chosen)
    if arm.draws == "errors_upweighted":
        images = replace(images, identified=errors_of(probabilities, labels))
    if arm.groups == "inferred":
        groups = groups_of(labels, infer_environments(probabilities, labels))
        images = replace(images, real=replace(images.real, groups=groups), num_groups=ENVIRONMENTS * images.num_classes)
    return images


def _fit(arm: Arm, images: _Images, cost: _Cost, *, steps: int, seed: int) -> Classifier:
    settings, device = cost.settings, cost.device

    def network_of(seed: int) -> Classifier:
        built = _start(arm, images, settings=settings, seed=seed)
        return built.to(device).to(memory_format=torch.channels_last)

    network = network_of(seed)
    run = Run(
        arm,
        images.real,
        images.synthetic,
        network,
        answers=images.answers,
        biased=network_of(seed + _BIASED_SEED) if arm.loss == "learning_from_failure" else None,
        num_classes=images.num_classes,
        settings=settings,
        seed=seed,
        device=device,
    )
    generator, mixing = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    rates = one_cycle(steps, peak=cost.learning_rate * (arm.rate_share if arm.learner == "fine_tuned" else 1.0))
    optimizer = torch.optim.AdamW(
        run.objective.parameters(),
        # On a GPU the rate is a tensor, which the recorded step reads anew each time.
        lr=torch.tensor(float(rates[0]), device=device) if run.on_gpu else rates[0],
        weight_decay=cost.weight_decay,
        fused=run.on_gpu or None,
        capturable=run.on_gpu,
    )
    network.train()
    done = 0
    for phase in _phases(arm, images, steps=steps, device=device):
        tables = run.tables(phase, rates=rates[done : done + phase.steps], generator=generator, mixing=mixing)
        repeat(
            run.step(phase, tables, optimizer),
            times=phase.steps,
            device=run.device,
            record=settings.record_steps and run.can_be_recorded,
        )
        done += phase.steps
    if run.mixing is not None:
        run.mixing.remove()
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


def _start(arm: Arm, images: _Images, *, settings: DownstreamSettings, seed: int) -> Classifier:
    """The network before its first step: from scratch, or a backbone's encoder with a new head."""
    height, width, channels = images.real.images.shape[1:]
    classes, reading = images.num_classes, images.reading
    if reading is None:
        shape = (height, width, channels)
        return build_network(settings.network, image_shape=shape, num_classes=classes, seed=seed)
    if reading.encoder is None:
        raise ValueError(f"arm {arm.name!r} needs a backbone whose encoder can be trained; this one has none.")
    return with_new_head(
        copy.deepcopy(reading.encoder), num_features=reading.encoder_features, num_classes=classes, seed=seed
    )


def _source(arm: Arm, data: DownstreamData) -> LabelledImages:
    if arm.source is None:
        return data.train.subset(np.zeros(0, dtype=np.int64))
    if arm.source not in data.synthetic:
        raise ValueError(
            f"arm {arm.name!r} needs synthetic images of source {arm.source!r}; "
            f"there are {', '.join(data.synthetic) or 'none'}."
        )
    return data.synthetic[arm.source]


def _require_attributes(arm: Arm, images: _Images) -> None:
    if not arm.needs_attributes:
        return
    known = attributes_of(images.real, images.synthetic)
    if known is None:
        what = "training" if images.real.attributes is None else "synthetic"
        raise ValueError(
            f"arm {arm.name!r} needs the attribute of every {what} image, and the data have none; give groups that an "
            "attribute divides, or choose a recipe that needs none, such as loss-oversampling."
        )
    if len(np.unique(known)) < 2:
        raise ValueError(f"arm {arm.name!r} needs an attribute of two values or more; the training images have one.")


def _phases(arm: Arm, images: _Images, *, steps: int, device: torch.device) -> list[Phase]:
    real, synthetic = images.real, images.synthetic
    num_real, num_synthetic = len(real), len(synthetic)
    odds = odds_of(arm, real.groups, synthetic_groups=synthetic.groups, identified=images.identified)
    loss = loss_of(
        arm,
        labels=np.concatenate([real.labels, synthetic.labels]),
        odds=odds,
        num_classes=images.num_classes,
        num_groups=images.num_groups,
        attributes=attributes_of(real, synthetic),
        device=device,
    )
    first = round(arm.synthetic_first * steps) if num_synthetic else 0
    alone = np.concatenate([np.zeros(num_real), balancing_odds(synthetic.groups)])
    phases = [Phase(first, alone, cross_entropy, False), Phase(steps - first, odds, loss, True)]
    return [phase for phase in phases if phase.steps]
