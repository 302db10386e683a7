"""Text-to-image folders of diffusers: which family they are of, and the backbone that they make with prompts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch

from minority.backbones.backbone import Backbone, BackboneError, Offload
from minority.backbones.component import load_component, read_json, weights_sha256
from minority.backbones.flow import FlowSchedule, shifted
from minority.backbones.latent import load_autoencoder, reduction_of
from minority.backbones.licence import licence_of
from minority.backbones.scheduler import TrainedNoise, read_scheduler
from minority.backbones.text.adapters import (
    Adapter,
    AdapterSettings,
    adapt_network,
    expanded,
    read_adapter,
    require_use,
)
from minority.backbones.text.denoiser import FlowTextDenoiser, TextDenoiser, TextEncoders, load_adapted_parts, table_of
from minority.backbones.text.families import FAMILIES
from minority.backbones.text.family import Family
from minority.backbones.text.offload import require_accelerate
from minority.backbones.text.prompts import Prompts
from minority.diffusion.condition import Embedding
from minority.weights import file_sha256, joint_sha256

_ROWS_AT_ONCE = 16
_DISTILLED = ("LCMScheduler", "TCDScheduler")  # of models that were distilled to a few steps


@dataclass(frozen=True, kw_only=True)
class TextToImage:
    """What a folder does not say of a text-to-image backbone.

    Attributes:
        prompts: What its labels stand for.
        size: Side of its images in pixels; None is the one that the network was trained for.
        distilled: Whether it was distilled to a few steps (Turbo, Lightning), which nothing in such a folder tells.
            None takes what the folder tells: LCM and FLUX.1-schnell are.
        guidance: The guidance scale that FLUX.1-dev is told as an input; None is its pipeline's own, 3.5.
        adapters: LoRA and textual inversion, brought in in this order.
        offload: How weights are moved to the device while they compute; None leaves them there. Changes no image.
    """

    prompts: Prompts
    size: int | None = None
    distilled: bool | None = None
    guidance: float | None = None
    adapters: tuple[AdapterSettings, ...] = ()
    offload: Offload | None = None


def family_of(path: Path) -> type[Family] | None:
    """The family of a text-to-image folder; None of any other folder."""
    index = path / "model_index.json"
    if not index.is_file():
        return None
    name = read_json(index).get("_class_name")
    return next((family for family in FAMILIES if name in family.pipelines), None)


def load_text_to_image(path: Path | str, settings: TextToImage, *, name: str | None = None) -> Backbone:
    """Load a text-to-image pipeline; its text encoders are freed once the prompts are embedded.

    Args:
        path: The folder.
        settings: Prompts, and what else is to be known.
        name: What messages call the backbone; None is the folder's name.

    Returns:
        The backbone on the CPU, its network in the precision it is stored in, its parameters without gradients.

    Raises:
        BackboneError: Where a file is missing, broken or of a kind that is not supported, transformers is missing (or
            accelerate, to offload), a prompt is too long, or the size does not fit.
    """
    if settings.offload is not None:
        require_accelerate()
    path = Path(path)
    kind = family_of(path)
    if kind is None:
        raise BackboneError(f"{path} is no text-to-image pipeline that is known here; see docs/backbones.md.")
    config = read_json(path / kind.part / "config.json")
    autoencoder = read_json(path / "vae" / "config.json")
    family = kind(config, factor=reduction_of(autoencoder), guidance=settings.guidance)
    if family.refusal is not None:
        raise BackboneError(f"{path / kind.part} is not supported: {family.refusal}.")
    state_shape = _state_shape(path, family, settings.size)
    scheduler_file = path / "scheduler" / "scheduler_config.json"
    scheduler = read_json(scheduler_file)
    trained = None if family.process == "flow" else read_scheduler(_as_trained(scheduler), source=scheduler_file)
    adapters = tuple(read_adapter(adapter, config) for adapter in settings.adapters)
    parts, of_text = load_adapted_parts(path, family, adapters)
    texts = [expanded(text, adapters) for text in settings.prompts.flat]
    negative = None if settings.prompts.negative is None else expanded(settings.prompts.negative, adapters)
    if texts:
        require_use(adapters, [*settings.prompts.flat, settings.prompts.negative or ""])
    table = _embedded(parts, family, texts, negative)
    del parts
    facts = [f"family: {kind.pipelines[0].removesuffix('Pipeline')}, {_noise_of(family, trained)}"]
    network = load_component(kind.network_class, path / kind.part, config, facts=facts, keep_dtype=True)
    adapt_network(adapters, network, of_text)
    scheduler_says: dict[str, Any] = {
        "table": table,
        "texts": (*texts, negative or ""),
        "encoders": TextEncoders(path, family, adapters),
        "state_shape": state_shape,
        "num_classes": len(settings.prompts.texts),
    }
    if trained is not None:
        denoiser: TextDenoiser | FlowTextDenoiser = TextDenoiser(network, family, trained, **scheduler_says)
        schedule = trained.schedule
    else:
        denoiser = FlowTextDenoiser(network, family, **scheduler_says)
        schedule = _flow_schedule(family, scheduler, state_shape, source=scheduler_file)
    codec = load_autoencoder(path / "vae", state_shape=state_shape, facts=facts)
    return Backbone(
        name=name or path.resolve().name,
        denoiser=denoiser,
        schedule=schedule,
        image_shape=codec.image_shape,
        num_classes=len(settings.prompts.texts),
        sha256=joint_sha256(_weights(path, kind, adapters)),
        settings_sha256=_settings_sha256(path, settings),
        bound=None if trained is None else trained.bound,
        codec=codec,
        facts=(*facts, *(line for adapter in adapters for line in adapter.describe())),
        prompts=settings.prompts,
        licence=licence_of(path),
        distilled=_distilled(family, scheduler, settings),
        offload=settings.offload,
    )


def _state_shape(path: Path, family: Family, size: int | None) -> tuple[int, int, int]:
    step = family.factor * family.multiple
    if size is not None and (size < step or size % step):
        raise BackboneError(f"{path} makes images whose side is a multiple of {step} pixels, not of {size}.")
    side = family.latent_side if size is None else size // family.factor
    return family.channels, side, side


def _as_trained(scheduler: Mapping[str, Any]) -> dict[str, Any]:
    """A scheduler's config, of distilled models by the noise levels of the model that was distilled."""
    name = scheduler.get("_class_name")
    if name not in _DISTILLED:
        return dict(scheduler)
    defaults = dict(getattr(diffusers, str(name))().config)
    known = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type")
    levels = {key: value for key, value in (defaults | dict(scheduler)).items() if key in (*known, "steps_offset")}
    return levels | {"_class_name": "DDIMScheduler", "clip_sample": False}


def _embedded(parts: Any, family: Family, texts: list[str], negative: str | None) -> Embedding:
    family.check(parts, [*texts, negative or ""])
    with torch.no_grad():
        rows = [family.embed(parts, texts[i : i + _ROWS_AT_ONCE]) for i in range(0, len(texts), _ROWS_AT_ONCE)]
        return table_of([*rows, family.embed_negative(parts, negative)])


def _noise_of(family: Family, trained: TrainedNoise | None) -> str:
    return "rectified flow" if trained is None else f"numbered noise levels, predicts {trained.prediction_type}"


def _flow_schedule(
    family: Family, config: Mapping[str, Any], shape: tuple[int, int, int], *, source: Path
) -> FlowSchedule:
    name = config.get("_class_name")
    if name != "FlowMatchEulerDiscreteScheduler":
        raise BackboneError(f"{source} is of a {name}; a flow needs a FlowMatchEulerDiscreteScheduler.")
    scheduler_class = diffusers.FlowMatchEulerDiscreteScheduler

    def law(count: int) -> np.ndarray:
        return np.asarray(family.sigmas(scheduler_class.from_config(dict(config)), count, shape), dtype=np.float64)

    full = scheduler_class.from_config(dict(config))
    num_steps = int(full.config.num_train_timesteps)
    even = np.arange(1, num_steps + 1) / num_steps
    return FlowSchedule.of(even if full.config.use_dynamic_shifting else shifted(even, full.config.shift), law)


def _distilled(family: Family, scheduler: Mapping[str, Any], settings: TextToImage) -> str | None:
    if settings.distilled is not None:
        return "its config says so (backbone.distilled)" if settings.distilled else None
    if scheduler.get("_class_name") in _DISTILLED:
        return f"its scheduler is a {scheduler['_class_name']}"
    return family.distilled


def _weights(path: Path, family: type[Family], adapters: Sequence[Adapter]) -> dict[str, str]:
    weights = {"network": weights_sha256(path / family.part), "autoencoder": weights_sha256(path / "vae")}
    for folder in sorted(path.glob("text_encoder*")):
        for file in sorted(folder.iterdir()):
            if file.suffix in (".safetensors", ".bin"):
                weights[f"{folder.name}/{file.name}"] = file_sha256(file)
    for number, adapter in enumerate(adapters):
        weights[f"adapter {number}"] = adapter.sha256
    return weights


def _settings_sha256(path: Path, settings: TextToImage) -> str:
    parts = {
        "prompts": json.dumps([settings.prompts.texts, settings.prompts.negative, settings.size, settings.guidance])
    }
    if settings.adapters:
        parts["adapters"] = json.dumps([[adapter.strength, adapter.token] for adapter in settings.adapters])
    for file in sorted(path.glob("*/*.json")) + sorted(path.glob("*/merges.txt")):
        if file.name.endswith(".index.json"):
            continue
        parts[f"{file.parent.name}/{file.name}"] = file_sha256(file)
    return joint_sha256(parts)
