"""What a loaded backbone is, and how its weights are read from a file without running code.

Shapes: B samples, C channels, H x W pixels; images are in [-1, 1].
"""

import copy
import hashlib
import json
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from minority.backbones.codec import Codec
from minority.diffusion.denoiser import Denoiser
from minority.diffusion.schedule import NoiseSchedule
from minority.diffusion.space import StateSpace

Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class BackboneError(ValueError):
    """A backbone cannot be loaded or saved; one line that names the file, the reason and the remedy."""


@dataclass(frozen=True, eq=False)
class Backbone:
    """A pretrained diffusion model, ready to be sampled from.

    Attributes:
        name: What messages and manifests call it: the name of its file or folder.
        denoiser: Predicts the noise.
        schedule: The noise levels it was trained on, one for every trained timestep.
        image_shape: (C, H, W) of one finished image.
        num_classes: How many labels it knows, 0 ... num_classes - 1; None where it is unconditional.
        sha256: 64 hex digits, the checksum of its weights' file, or of all its parts where it has several.
        settings_sha256: The same of the files beside the weights that decide what they mean.
        bound: Largest absolute value of a clean state, to which samplers clip; None where nothing is clipped.
        codec: Between images and the states that the chain walks; None where these are the images.
    """

    name: str
    denoiser: Denoiser
    schedule: NoiseSchedule
    image_shape: tuple[int, int, int]
    num_classes: int | None
    sha256: str
    settings_sha256: str = ""
    bound: float | None = 1.0
    codec: Codec | None = None

    @property
    def identity(self) -> str:
        """64 hex digits over all that decides what it predicts; what recipes name."""
        return joint_sha256({"weights": self.sha256, "settings": self.settings_sha256})

    @property
    def state_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the states that the chain walks, and of its noise."""
        return self.image_shape if self.codec is None else self.codec.state_shape

    @property
    def space(self) -> StateSpace:
        """Where its clean states lie."""
        if self.codec is None:
            return StateSpace(bound=self.bound)
        return StateSpace(bound=self.bound, to_images=self.codec.decode, discretised=self.codec.discretised)

    def encode(self, images: Tensor) -> Tensor:
        """The clean states (B, *state_shape) that stand for images (B, *image_shape)."""
        return images if self.codec is None else self.codec.encode(images)

    def finish(
        self, states: Tensor, *, seed: int, indices: Sequence[int], label: Tensor | None
    ) -> tuple[Tensor, float]:
        """Turn drawn states into images.

        Args:
            states: (B, *state_shape) where the chains ended.
            seed: The run's seed.
            indices: (B,) sample indices; each decides what noise its image still needs.
            label: (B,) int64 labels, or None.

        Returns:
            (B, *image_shape), and the network calls a sample that it took.
        """
        return (states, 0.0) if self.codec is None else self.codec.finish(states, seed, indices, label)

    def to(self, device: torch.device | str) -> "Backbone":
        """The same backbone on a device. This one stays where it is, so that workers can share it."""
        if not isinstance(self.denoiser, nn.Module):
            return self
        device = torch.device(device)
        tensors = (*self.denoiser.parameters(), *self.denoiser.buffers())
        if all(tensor.device == device for tensor in tensors):
            return self
        codec = None if self.codec is None else self.codec.to(device)
        return replace(self, denoiser=copy.deepcopy(self.denoiser).to(device), codec=codec)

    def in_precision(self, precision: Precision) -> "Backbone":
        """The same backbone with its network's parameters in bf16 or fp16; the schedule's arithmetic stays fp32."""
        dtype = _DTYPES[precision]
        if not isinstance(self.denoiser, nn.Module) or all(p.dtype == dtype for p in self.denoiser.parameters()):
            return self
        denoiser = copy.deepcopy(self.denoiser)
        for parameter in denoiser.parameters():
            parameter.data = parameter.data.to(dtype)
        codec = None if self.codec is None else self.codec.in_precision(precision)
        return replace(self, denoiser=denoiser, codec=codec)


def file_sha256(path: Path) -> str:
    """Checksum of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def joint_sha256(parts: Mapping[str, str]) -> str:
    """One checksum over several.

    Args:
        parts: Checksum or text of each part by its role; the order does not count.

    Returns:
        64 hex digits.
    """
    return hashlib.sha256(json.dumps(dict(parts), sort_keys=True).encode()).hexdigest()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a flat table of tensors onto the CPU.

    Args:
        path: A `.safetensors` file, or a file of `torch.save`, which is read without running any code in it.

    Raises:
        BackboneError: Where the file is missing, empty, truncated, would run code, or holds something else.
    """
    if not path.is_file():
        raise BackboneError(f"{path} does not exist or is not a file; give the path of the weights.")
    if path.stat().st_size == 0:
        raise BackboneError(f"{path} is empty; fetch or copy it again.")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else read_pickled(path)
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise BackboneError(f"{path} is not a flat table of tensors ({_outline(content)}); save the state dict alone.")
    return dict(content)


def _read_safetensors(path: Path) -> object:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise BackboneError(
            f"{path} is truncated or not a safetensors file ({_first_line(error)}); fetch or copy it again."
        ) from error


def read_pickled(path: Path) -> Any:
    """Read what `torch.save` wrote, tensors and plain values, onto the CPU, without running any code in it.

    Args:
        path: The file.

    Raises:
        BackboneError: Where the file is missing, truncated, or would run code.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickles, which end below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked_for = re.search(r"GLOBAL (\S+)|(?:unrecognized (?:function|class)) (.+)|(Can only build .+)", str(error))
        if asked_for:
            raise BackboneError(
                f"{path} holds more than tensors and could run code when opened, so it is refused (it asks for "
                f"{asked_for[asked_for.lastindex or 0]}); take the weights from a source you trust and save the state "
                "dict alone."
            ) from error
        reason = "its content is no pickle that torch.save writes"
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        # A torn archive ends in any of these, by where it was torn.
        reason = _first_line(error)
    raise BackboneError(f"{path} is truncated or not a checkpoint ({reason}); fetch or copy it again.")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


def _outline(content: object) -> str:
    if isinstance(content, Mapping):
        return "its entries are " + (", ".join(str(key) for key in list(content)[:3]) or "none")
    return f"it holds a {type(content).__name__}"
