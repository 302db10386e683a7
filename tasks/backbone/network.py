"""The U-Net that a config trains, and the conditions that it is told of every image.

Shapes: N images, F conditions.
"""

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import UNet2DModel
from numpy.typing import NDArray

from minority.backbones import UNetSettings
from minority.backbones.factors import Factor, Factors, with_factors
from tasks.config.runs import TrainBackboneConfig
from tasks.errors import InputError
from tasks.inputs.planned_groups import GroupValues
from tasks.inputs.real_data import RealData


def build_network(config: TrainBackboneConfig, real: RealData) -> tuple[UNet2DModel, UNetSettings]:
    """The network with its initial weights, and what its folder says of it.

    Raises:
        InputError: The architecture does not fit the images.
    """
    height, width, channels = real.train.image_shape
    if height != width:
        raise InputError(f"the backbone needs square images, {real.train.name} has {height} x {width} pixels.")
    classes = len(real.train.class_names) if config.conditional else None
    no_label = 1 if config.training.label_dropout > 0 else 0
    factors = factors_of(config, real)
    rows = factors.num_rows if factors is not None else None if classes is None else classes + no_label
    with torch.random.fork_rng():
        torch.manual_seed(config.training.seed)
        try:
            unet = UNet2DModel(
                sample_size=height,
                in_channels=channels,
                out_channels=channels * (2 if config.training.variance == "learned_range" else 1),
                num_class_embeds=rows,
                **config.architecture.model_dump(),
            )
        except ValueError as error:
            raise InputError(f"architecture: {error}") from error
        if factors is not None:
            unet = with_factors(unet, factors)
    return unet, UNetSettings(num_classes=classes, prediction_type=config.training.prediction, factors=factors)


def factors_of(config: TrainBackboneConfig, real: RealData) -> Factors | None:
    """The conditions of a config with their values in the training split; None where there is the label alone.

    Raises:
        InputError: An attribute is no column of the set's groups, or has one value.
    """
    if not config.conditions:
        return None
    attributes = GroupValues(real).attributes
    for name in config.conditions[1:]:
        if len(attributes.get(name, ())) < 2:
            raise InputError(
                f"conditions name {name!r}, of which the training images have {len(attributes.get(name, ()))} values; "
                f"those with two or more are {', '.join(n for n, v in attributes.items() if len(v) > 1) or 'none'}."
            )
    try:
        label = Factor("label", tuple(real.train.class_names))
        return Factors((label, *(Factor(name, attributes[name]) for name in config.conditions[1:])))
    except ValueError as error:
        raise InputError(str(error)) from error


def condition_rows(config: TrainBackboneConfig, groups: Sequence[str], real: RealData) -> NDArray[np.int64]:
    """What the network is told of training images: their labels, or the rows of all their conditions."""
    factors = factors_of(config, real)
    return real.train.labels if factors is None else factors.rows(condition_values(factors, groups, real))


def condition_values(factors: Factors, groups: Sequence[str], real: RealData) -> NDArray[np.int64]:
    """(N, F) the values of images by their groups, -1 where one is missing or was never seen in training."""
    values = GroupValues(real)
    numbers = values.numbers(groups)
    columns = [0, *(1 + list(values.attributes).index(name) for name in factors.names[1:])]
    return numbers[:, columns]
