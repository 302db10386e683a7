"""Any network of one's own as a backbone, named by an entry point such as `my_package.my_model:load`.

The entry point is a function without arguments that returns an `OwnModel`, and is marked by `@entry_point`: no other
function is ever called. Its module is imported, which runs it: name none that you do not trust.

Shapes: B samples, C channels, H x W pixels; images are in [-1, 1].
"""

import hashlib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal
from weakref import WeakSet

import torch
from torch import Tensor, nn

from minority.backbones.backbone import Backbone, BackboneError
from minority.backbones.network import NetworkDenoiser, PredictionType
from minority.diffusion.finite import require_finite
from minority.diffusion.schedule import NoiseSchedule
from minority.weights import file_sha256, joint_sha256, require_finite_tensors


@dataclass(frozen=True, eq=False)
class OwnModel:
    """A network and what must be known to sample from it.

    Attributes:
        network: Called as network(x_t, t), or network(x_t, t, y) where it knows classes: x_t (B, C, H, W), t and y (B,)
            int64. Returns (B, C, H, W), or (B, 2C, H, W) where it learns its variance as a range.
        image_shape: (C, H, W) of one image.
        schedule: The noise levels it was trained on, or "linear" or "cosine" for the published thousand.
        prediction_type: What the first C output channels are: the noise, the clean image, or v.
        num_classes: How many labels it knows; None where it is unconditional.
        no_label: The label that stands for none, if it was trained with labels left out.
        bound: Largest absolute value of a clean image, to which samplers clip; None clips nothing.
    """

    network: nn.Module
    _: KW_ONLY
    image_shape: tuple[int, int, int]
    schedule: NoiseSchedule | Literal["linear", "cosine"] = "linear"
    prediction_type: PredictionType = "epsilon"
    num_classes: int | None = None
    no_label: int | None = None
    bound: float | None = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.network, nn.Module):
            raise BackboneError(f"OwnModel.network must be a torch module, got a {type(self.network).__name__}.")
        if len(self.image_shape) != 3 or not all(isinstance(size, int) and size > 0 for size in self.image_shape):
            raise BackboneError(f"OwnModel.image_shape must be (channels, height, width), got {self.image_shape}.")
        if not isinstance(self.schedule, NoiseSchedule) and self.schedule not in ("linear", "cosine"):
            raise BackboneError(
                f'OwnModel.schedule must be "linear", "cosine" or a NoiseSchedule, got {self.schedule!r}.'
            )


_marked: WeakSet[Callable[[], Any]] = WeakSet()


def entry_point(function: Callable[[], OwnModel]) -> Callable[[], OwnModel]:
    """Mark a function as one that a backbone may be made of; a config can name it, and no other function.

    Args:
        function: Takes no arguments and returns an `OwnModel`.

    Returns:
        The function itself.
    """
    _marked.add(function)
    return function


class OwnDenoiser(NetworkDenoiser):
    """An `OwnModel` behind the denoiser contract.

    Args:
        model: The network and its settings.

    Raises:
        BackboneError: Where the network does not take the arguments it would be called with.
    """

    def __init__(self, model: OwnModel) -> None:
        super().__init__(
            _schedule(model),
            state_shape=model.image_shape,
            prediction_type=model.prediction_type,
            num_classes=model.num_classes,
            no_label=model.no_label,
        )
        self.network = model.network.eval().requires_grad_(False)
        arguments = ("x_t", "t") if model.num_classes is None else ("x_t", "t", "y")
        try:
            inspect.signature(self.network.forward).bind(*arguments)
        except TypeError as error:
            name, called = type(self.network).__name__, ", ".join(arguments)
            raise BackboneError(f"{name} must be callable as network({called}): {error}.") from error

    def run(self, x: Tensor, timestep: Tensor, label: Tensor | None) -> Tensor:
        """The network's output, checked; see `NetworkDenoiser.run`. Raises ValueError for another shape."""
        output = self.network(x, timestep) if label is None else self.network(x, timestep, label)
        channels, *size = self.state_shape
        allowed = [(len(x), count, *size) for count in (channels, 2 * channels)]
        if not isinstance(output, Tensor) or tuple(output.shape) not in allowed:
            got = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
            raise ValueError(
                f"{type(self.network).__name__} must return a tensor of {allowed[0]}, or of {allowed[1]} where it "
                f"learns its variance, for x_t of {tuple(x.shape)}; it returned {got}."
            )
        return output


def is_entry_point(text: str) -> bool:
    """Whether a text is laid out as package.module:function."""
    return re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", text) is not None


def load_own_model(named: str) -> Backbone:
    """Call an entry point and make a backbone of what it returns; the network is tried once, on one empty image.

    The module is looked for where Python looks, then in the current folder. The checksum covers the module's source
    file and every parameter and buffer of the network, wherever they came from; not other modules that it imports.

    Args:
        named: package.module:function.

    Raises:
        BackboneError: Where module or function are missing, it is not marked by `entry_point`, it returns no
            `OwnModel`, or the network cannot be called as it must be, holds or answers NaN or infinity. What the
            user's own code raises is passed on.
    """
    module_name, _, name = named.partition(":")
    with _current_folder_on_path():
        module = _import(module_name, named)
        function = getattr(module, name, None)
        if not inspect.isfunction(function):
            file = getattr(module, "__file__", None) or module_name
            raise BackboneError(f"{named}: {file} has no function {name}; look at its spelling.")
        if function not in _marked:
            raise BackboneError(
                f"{named} is not marked as an entry point, so it is not called; if it is yours and returns an "
                "OwnModel, put @minority.backbones.entry_point above it."
            )
        model = function()
    if not isinstance(model, OwnModel):
        raise BackboneError(f"{named} must return a minority.backbones.OwnModel, it returned a {type(model).__name__}.")
    try:
        denoiser = OwnDenoiser(model)
        require_finite_tensors(dict(model.network.named_parameters()), source=type(model.network).__name__)
        with torch.no_grad():
            label = None if model.num_classes is None else torch.zeros(1, dtype=torch.int64)
            answer = denoiser(torch.zeros(1, *model.image_shape), torch.zeros(1, dtype=torch.int64), label)
        require_finite(answer.eps, f"the answer of {type(model.network).__name__} to an empty image")
    except ValueError as error:
        raise BackboneError(f"{named}: {error}") from error
    return Backbone(
        name=named,
        denoiser=denoiser,
        schedule=_schedule(model),
        image_shape=model.image_shape,
        num_classes=model.num_classes,
        sha256=joint_sha256({"source": _source_sha256(module), "network": _network_sha256(model.network)}),
        bound=model.bound,
        facts=(f"family: {type(model.network).__name__} of {module_name}, predicts {model.prediction_type}",),
    )


def _schedule(model: OwnModel) -> NoiseSchedule:
    if isinstance(model.schedule, NoiseSchedule):
        return model.schedule
    return NoiseSchedule.linear() if model.schedule == "linear" else NoiseSchedule.cosine()


@contextmanager
def _current_folder_on_path() -> Iterator[None]:
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _import(module_name: str, named: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise BackboneError(f"{named} needs the module {error.name}, which is not installed.") from error
        raise BackboneError(
            f"{named}: there is no module {error.name}; install it, or start in the folder that holds it "
            f"({Path.cwd()} does not)."
        ) from error


def _source_sha256(module: ModuleType) -> str:
    return file_sha256(Path(module.__file__)) if module.__file__ else ""


def _network_sha256(network: nn.Module) -> str:
    digest = hashlib.sha256()
    tensors = dict(network.named_parameters()) | dict(network.named_buffers())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
