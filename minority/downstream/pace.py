"""How long the training of a classifier takes on this machine, from a few of its steps."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from minority.downstream.arms import Arm
from minority.downstream.data import DownstreamData, LabelledImages
from minority.downstream.networks import Classifier
from minority.downstream.settings import DownstreamSettings
from minority.downstream.training import probabilities_and_features, train
from minority.runtime.timing import seconds_of, speed_up

_FEW, _MORE = 2, 8  # steps
_SAMPLE = 256  # images, which a pass of evaluation takes


def seconds_a_training(
    images: LabelledImages,
    *,
    class_names: Sequence[str],
    group_names: Sequence[str],
    evaluated: int,
    settings: DownstreamSettings,
    device: torch.device | str,
    side_by_side: int = 1,
) -> float:
    """Time a few steps of plain training on real images, and a pass over some of them.

    Recipes differ little: steps and batches are the same in all, and an early model has its share of the steps.

    Args:
        images: Training images; every class has one.
        class_names: K names.
        group_names: G names.
        evaluated: Images that the trained network is tried on.
        settings: The budget of a training.
        device: Where to compute.
        side_by_side: Trainings at once, in threads.

    Returns:
        Seconds of one training and its evaluation on an idle machine; of several at once, what one adds to the time of
        all.
    """
    first_of_class = np.unique(images.labels, return_index=True)[1]
    spread = np.linspace(0, len(images) - 1, min(_SAMPLE, len(images))).astype(np.int64)
    some = images.subset(np.union1d(first_of_class, spread))
    data = DownstreamData(
        train=some, validation=some, test=some, class_names=tuple(class_names), group_names=tuple(group_names)
    )

    def trained(steps: int) -> Classifier:
        return train(
            Arm(name="real"),
            data,
            learning_rate=settings.learning_rates[0],
            weight_decay=settings.weight_decays[0],
            settings=replace(settings, steps=steps, record_steps=False),
            seed=0,
            device=device,
        )

    few, more = (seconds_of(partial(trained, steps), device=device) for steps in (_FEW, _MORE))
    a_step = max(0.0, more - few) / (_MORE - _FEW)
    network = trained(1)
    a_pass = seconds_of(partial(probabilities_and_features, network, some), device=device)
    alone = few + (settings.steps - _FEW) * a_step + evaluated * a_pass / len(some)
    return alone / speed_up(partial(trained, _FEW), threads=side_by_side)
