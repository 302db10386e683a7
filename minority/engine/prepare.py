"""How a backbone's network is run: what makes it faster and changes images at most in their last bits.

`prepared` makes a copy of a backbone on its device, in its precision, with every option in place, and keeps it as long
as the backbone lives, so that the units of a run share what was compiled or recorded.
"""

import copy
import threading
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from minority.backbones import Backbone
from minority.backbones.backbone import Precision
from minority.backbones.text.offload import offloaded
from minority.engine.cuda_graphs import Recorded
from minority.engine.static_shapes import StaticShapes


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """How the network is run.

    Attributes:
        channels_last: Keep weights and activations with the channels innermost, as tensor cores and oneDNN want them.
        compile: Compile the network for one size of batch, shorter ones being filled up. The first batch waits for
            that (the log says how long); torch keeps the result on disk for later processes.
        cuda_graphs: On a GPU, record the calls without gradients as CUDA graphs, which spares small networks the time
            to launch their kernels. Elsewhere without effect.
        checkpoint: Compute activations again in the backward pass instead of keeping them: a third more time for
            guidance through the denoiser, and far less memory.
    """

    channels_last: bool = False
    compile: bool = False
    cuda_graphs: bool = False
    checkpoint: bool = False


_Key = tuple[str, Precision, EngineSettings]
_kept: WeakKeyDictionary[Backbone, dict[_Key, Backbone]] = WeakKeyDictionary()
_preparing = threading.Lock()


def prepared(
    backbone: Backbone,
    *,
    device: torch.device | str = "cpu",
    precision: Precision = "fp32",
    engine: EngineSettings | None = None,
) -> Backbone:
    """A backbone as samplers and scores run it: frozen, on a device, in a precision, with an engine.

    Args:
        backbone: Stays as it is.
        device: Where to compute.
        precision: Of parameters and activations; the schedule's arithmetic stays fp32.
        engine: None runs the network as it is.

    Raises:
        ValueError: Where `checkpoint` is asked of a network that cannot.
    """
    engine = engine or EngineSettings()
    key = (str(torch.device(device)), precision, engine)
    with _preparing:
        of_backbone = _kept.setdefault(backbone, {})
        if key not in of_backbone:
            made = _made(backbone, torch.device(device), precision, engine)
            if made is backbone:  # which must not keep itself alive
                return backbone
            of_backbone[key] = made
        return of_backbone[key]


def _made(backbone: Backbone, device: torch.device, precision: Precision, engine: EngineSettings) -> Backbone:
    if backbone.offload is None or device.type == "cpu":
        return _prepare(backbone.to(device).in_precision(precision), engine, original=backbone)
    if engine != EngineSettings():
        raise ValueError(
            f"backbone {backbone.name} is offloaded, and sampler.engine takes weights to stay where they are; leave "
            "backbone.offload or sampler.engine out."
        )
    return offloaded(backbone.in_precision(precision), device)


def _prepare(backbone: Backbone, engine: EngineSettings, *, original: Backbone) -> Backbone:
    denoiser = backbone.denoiser
    if not isinstance(denoiser, nn.Module):
        return backbone
    frozen = not any(parameter.requires_grad for parameter in denoiser.parameters())
    if frozen and engine == EngineSettings():
        return backbone
    if denoiser is original.denoiser:
        denoiser = copy.deepcopy(denoiser)
    denoiser.requires_grad_(False)  # a backward pass then needs the gradients of activations alone
    if engine.channels_last:
        denoiser.to(memory_format=torch.channels_last)
    for name, network in list(denoiser.named_children()):
        if next(network.parameters(), None) is None:  # a table, not a network
            continue
        setattr(denoiser, name, _equip(network, engine, name=f"{backbone.name}.{name}"))
    return replace(backbone, denoiser=denoiser)


def _equip(network: Any, engine: EngineSettings, *, name: str) -> nn.Module:
    if engine.checkpoint:
        if not getattr(network, "_supports_gradient_checkpointing", False):
            raise ValueError(f"EngineSettings.checkpoint: {name} has no gradient checkpointing; switch it off.")
        network.enable_gradient_checkpointing()
    if engine.compile:
        network.compile(dynamic=False)
    if engine.cuda_graphs:
        network = Recorded(network)
    return StaticShapes(network, name=name) if engine.compile or engine.cuda_graphs else network
