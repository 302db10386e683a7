"""Text-to-image backbones on a small device: weights wait in the host's memory, and go to the device to compute.

By accelerate's hooks, as diffusers' pipelines offload: "model" has either the network or the autoencoder on the device,
"sequential" one layer at a time, which is far slower and needs the least. Prompts are embedded on the CPU before, and
their encoders freed, so that these need no device in either way.
"""

import copy
import importlib.util
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import nn

from minority.backbones.backbone import Backbone, BackboneError
from minority.backbones.codec import Codec
from minority.backbones.fitted import FittedCodec
from minority.backbones.latent import AutoencoderCodec

_Module = TypeVar("_Module", bound=nn.Module)


def require_accelerate() -> None:
    """Refuse to offload without accelerate.

    Raises:
        BackboneError: It is not installed.
    """
    if importlib.util.find_spec("accelerate") is None:
        raise BackboneError(
            "backbone.offload needs accelerate, which is not installed; install it: "
            "pip install 'minority-augment[gpus]', or leave offload out."
        )


def offloaded(backbone: Backbone, device: torch.device | str) -> Backbone:
    """A backbone that computes on a device and keeps its weights on the CPU meanwhile.

    Args:
        backbone: A text-to-image one with `offload`, on the CPU; stays as it is, and shares its weights' memory with
            the result until they are moved for the first time.
        device: Where to compute.

    Raises:
        BackboneError: accelerate is not installed.
    """
    require_accelerate()
    from accelerate import cpu_offload, cpu_offload_with_hook

    assert isinstance(backbone.denoiser, nn.Module), "text-to-image backbones are networks"
    assert backbone.codec is not None, "text-to-image backbones walk latents"
    denoiser = _with_shared_weights(backbone.denoiser)
    network, autoencoder = denoiser.network, _with_shared_weights(_autoencoder_of(backbone.codec))
    assert isinstance(network, nn.Module), "as it was loaded"
    # All but the network is small: tables of prompts and of noise levels.
    del denoiser.network
    denoiser.to(device)
    denoiser.network = network
    if backbone.offload == "sequential":
        for part in (network, autoencoder):
            cpu_offload(part, execution_device=torch.device(device), offload_buffers=len(part._parameters) > 0)
    else:
        _, of_network = cpu_offload_with_hook(network, torch.device(device))
        _, of_autoencoder = cpu_offload_with_hook(autoencoder, torch.device(device), prev_module_hook=of_network)
        of_network.hook.prev_module_hook = of_autoencoder
    return replace(backbone, denoiser=denoiser, codec=_with_autoencoder(backbone.codec, autoencoder))


def _with_shared_weights(module: _Module) -> _Module:
    """A copy of a module whose parameters are others, in the same memory."""
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)
        for parameter in module.parameters()
    }
    return copy.deepcopy(module, memo)


def _autoencoder_of(codec: Codec) -> nn.Module:
    inner = codec.inner if isinstance(codec, FittedCodec) else codec
    assert isinstance(inner, AutoencoderCodec), "text-to-image backbones have an autoencoder"
    autoencoder: nn.Module = inner.autoencoder
    return autoencoder


def _with_autoencoder(codec: Codec, autoencoder: Any) -> Codec:
    if isinstance(codec, FittedCodec):
        return replace(codec, inner=_with_autoencoder(codec.inner, autoencoder))
    assert isinstance(codec, AutoencoderCodec), "text-to-image backbones have an autoencoder"
    return replace(codec, autoencoder=autoencoder)
