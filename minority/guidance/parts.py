"""Trained parts as bytes: tensors by name in the safetensors format, which runs no code when it is read."""

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from minority.guidance.materials import Tensors


def pack(part: Tensors) -> bytes:
    """A trained part as bytes."""
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in part.items()})


def unpack(content: bytes, *, name: str) -> Tensors:
    """A trained part from bytes, on the CPU.

    Args:
        content: As `pack` gave it.
        name: What messages call it.

    Raises:
        ValueError: It is none.
    """
    try:
        tensors: dict[str, torch.Tensor] = load(content)
    except SafetensorError as error:
        raise ValueError(f"{name} holds no tensors ({error}); it is damaged: delete it to make it again.") from error
    return tensors
