"""Trained networks and scores of the selection as bytes: safetensors, from which nothing but numbers can be read.

An ensemble's tensors are `<member>.<name>`; its architecture follows from their shapes. What belongs to it stands
beside it as tensors of other names.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save

from minority.classifier import SmallCNN
from minority.selection.discriminator import Discriminator, DiscriminatorOutput
from minority.selection.labelling import Labeller

_SHAPE = "image_shape"


def discriminator_bytes(discriminator: Discriminator) -> bytes:
    """A discriminator with its outputs on the training images; equal discriminators are equal bytes."""
    of_training = {"p_real": discriminator.of_training.p_real, "probabilities": discriminator.of_training.probabilities}
    return _ensemble_bytes(discriminator.members, beside=of_training)


def read_discriminator(data: bytes, *, device: torch.device | str = "cpu") -> Discriminator:
    """The discriminator that `discriminator_bytes` was given, on a device.

    Raises:
        ValueError: The bytes are none.
    """
    members, beside = _read_ensemble(data, names=("p_real", "probabilities"), device=device)
    return Discriminator(members=members, of_training=DiscriminatorOutput(**beside))


def labeller_bytes(labeller: Labeller) -> bytes:
    """A labeller; equal ones are equal bytes."""
    return _ensemble_bytes(labeller.members, beside={})


def read_labeller(data: bytes, *, device: torch.device | str = "cpu") -> Labeller:
    """The labeller that `labeller_bytes` was given, on a device.

    Raises:
        ValueError: The bytes are none.
    """
    return Labeller(_read_ensemble(data, names=(), device=device)[0])


def array_bytes(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Arrays by name; equal ones are equal bytes."""
    content: bytes = save({name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()})
    return content


def read_arrays(data: bytes) -> dict[str, Any]:
    """The arrays that `array_bytes` was given.

    Raises:
        ValueError: The bytes are none.
    """
    try:
        return {name: tensor.numpy() for name, tensor in load(data).items()}
    except SafetensorError as error:
        raise ValueError(f"stored arrays cannot be read ({error}); remove the file.") from error


def _ensemble_bytes(members: Sequence[SmallCNN], *, beside: Mapping[str, NDArray[np.generic]]) -> bytes:
    arrays = {**beside, _SHAPE: np.array(members[0].image_shape, dtype=np.int64)}
    for i, member in enumerate(members):
        arrays |= {f"{i}.{name}": value.cpu().numpy() for name, value in member.state_dict().items()}
    return array_bytes(arrays)


def _read_ensemble(
    data: bytes, *, names: Sequence[str], device: torch.device | str
) -> tuple[tuple[SmallCNN, ...], dict[str, Any]]:
    try:
        tensors = load(data)
        beside = {name: tensors.pop(name).numpy() for name in names}
        channels, height, width = tensors.pop(_SHAPE).tolist()
        count = len({name.partition(".")[0] for name in tensors})
        members = []
        for i in range(count):
            state = {name.removeprefix(f"{i}."): value for name, value in tensors.items() if name.startswith(f"{i}.")}
            member = SmallCNN(
                (height, width),
                num_channels=channels,
                num_classes=len(state["head.bias"]),
                width=len(state["features.0.weight"]),
            )
            member.load_state_dict(state)
            members.append(member.to(device).eval())
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ValueError(f"stored networks cannot be read ({str(error).splitlines()[0]}); remove the file.") from error
    return tuple(members), beside
