"""Backbones as diffusers folders: a pipeline with its network, its scheduler, and a card.

    <folder>/unet/config.json + diffusion_pytorch_model.safetensors          or transformer/, of a DiT
    <folder>/scheduler/scheduler_config.json
    <folder>/vae/ or vqvae/        the autoencoder of a latent pipeline, laid out as the network
    <folder>/model_index.json      lets bare diffusers open the folder as a pipeline
    <folder>/minority.json         what those cannot say (UNetSettings); optional
    <folder>/README.md             the model card

Folders of bare U-Nets (config.json and scheduler_config.json side by side) are read as well.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import DDPMPipeline, DDPMScheduler, DiTTransformer2DModel, UNet2DModel

from minority.backbones.backbone import Backbone, BackboneError
from minority.backbones.component import load_component, read_json, weights_sha256
from minority.backbones.dit import DiTDenoiser
from minority.backbones.factors import Factors, with_joint_table
from minority.backbones.latent import load_autoencoder
from minority.backbones.licence import licence_of
from minority.backbones.scheduler import TrainedNoise, read_scheduler
from minority.backbones.sigma_unet import SigmaUNetDenoiser
from minority.backbones.text.folder import TextToImage, family_of, load_text_to_image
from minority.backbones.unet import UNetDenoiser, UNetSettings
from minority.diffusion.schedule import NoiseSchedule
from minority.weights import joint_sha256

_SETTINGS = "minority.json"
_CONDITIONS = "conditions"


def load_folder(path: Path | str, *, name: str | None = None, text: TextToImage | None = None) -> Backbone:
    """Load a diffusers folder: in pixel space or of latents, with or without labels.

    Args:
        path: The folder.
        name: What messages call the backbone; None is the folder's name.
        text: Prompts, and what else a text-to-image folder needs.

    Returns:
        The backbone on the CPU, in fp32 unless it draws by prompts, its parameters without gradients.

    Raises:
        BackboneError: Where a file is missing or broken, the weights do not fit the config, or the pipeline is of
            another kind.
    """
    path = Path(path)
    if not path.is_dir():
        raise BackboneError(f"{path} does not exist or is not a folder; give the path of a diffusers folder.")
    if family_of(path) is not None:
        if text is None:
            raise BackboneError(f"{path} is a text-to-image pipeline, which draws by prompts; set backbone.prompts.")
        return load_text_to_image(path, text, name=name)
    if text is not None:
        raise BackboneError(
            f"{path} is no text-to-image pipeline that is supported, so it takes no prompts; leave prompts out, or see "
            "docs/backbones.md."
        )
    network = _part(path, "transformer", "unet") or path
    scheduler = (_part(path, "scheduler") or path) / "scheduler_config.json"
    configs = {"network": read_json(network / "config.json"), "scheduler": read_json(scheduler)}
    stored = read_json(path / _SETTINGS) if (path / _SETTINGS).is_file() else {}
    trained = read_scheduler(configs["scheduler"], source=scheduler)
    facts: list[str] = []
    denoiser = _denoiser(path, network, configs["network"], trained, stored, facts=facts)
    facts += _conditions_found(stored)
    weights = {"network": weights_sha256(network)}
    codec, autoencoder = None, _part(path, "vae", "vqvae")
    if autoencoder is not None:
        codec = load_autoencoder(autoencoder, state_shape=denoiser.state_shape, facts=facts)
        configs["autoencoder"] = read_json(autoencoder / "config.json")
        weights["autoencoder"] = weights_sha256(autoencoder)
    return Backbone(
        name=name or path.resolve().name,
        denoiser=denoiser,
        schedule=trained.schedule,
        image_shape=denoiser.state_shape if codec is None else codec.image_shape,
        num_classes=denoiser.num_classes,
        sha256=joint_sha256(weights) if len(weights) > 1 else weights["network"],
        settings_sha256=_settings_sha256(configs, stored),
        bound=trained.bound,
        codec=codec,
        licence=licence_of(path),
        factors=denoiser.settings.factors if isinstance(denoiser, UNetDenoiser) else None,
        facts=(f"family: {_kind_of(configs, trained)}", *facts),
    )


def save_folder(
    path: Path | str,
    unet: UNet2DModel,
    *,
    schedule: NoiseSchedule,
    settings: UNetSettings | None = None,
    card: str = "",
) -> Path:
    """Save a U-Net as a diffusers folder; `load_folder` gives back the same outputs and the same schedule.

    The folder appears whole, by renaming; a backbone folder that stood there is replaced.

    Args:
        path: The folder to make.
        unet: The U-Net.
        schedule: All the noise levels that it was trained on, not respaced.
        settings: What else must be known to use it.
        card: Text of the model card, Markdown.

    Returns:
        The folder.

    Raises:
        BackboneError: Where the schedule is respaced, or something else than a backbone stands at `path`.
    """
    path, settings, unet = Path(path), settings or UNetSettings(), with_joint_table(unet)
    if settings.variance_type == "learned_log":
        raise BackboneError("diffusers' folders have no variance that is learned as its logarithm; save it elsewhere.")
    was_training = unet.training
    UNetDenoiser(unet, schedule, settings=settings)  # refuses what could not be loaded again
    unet.train(was_training)
    if path.exists() and not (path / "unet" / "config.json").is_file() and (path.is_file() or any(path.iterdir())):
        raise BackboneError(f"{path} exists and is not a backbone folder, so it is left alone; choose another path.")
    learns_variance = unet.config.out_channels != unet.config.in_channels // (2 if settings.low_resolution else 1)
    scheduler = DDPMScheduler(
        num_train_timesteps=schedule.num_steps,
        prediction_type=settings.prediction_type,
        variance_type=settings.variance_type if learns_variance else "fixed_small",
        **_betas_config(schedule),
    )
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    DDPMPipeline(unet=unet, scheduler=scheduler).save_pretrained(partial)
    (partial / _SETTINGS).write_text(json.dumps(_settings_json(settings), indent=2) + "\n", encoding="utf-8")
    (partial / "README.md").write_text(card or f"# {path.name}\n", encoding="utf-8")
    if path.exists():
        shutil.rmtree(path)
    partial.rename(path)
    return path


def _part(path: Path, *names: str) -> Path | None:
    return next((path / name for name in names if (path / name).is_dir()), None)


def _denoiser(
    path: Path,
    network: Path,
    config: Mapping[str, Any],
    trained: TrainedNoise,
    stored: Mapping[str, Any],
    *,
    facts: list[str],
) -> UNetDenoiser | SigmaUNetDenoiser | DiTDenoiser:
    family = _family(path, network, config)
    if family is UNet2DModel:
        if config.get("sample_size") is None:
            raise BackboneError(f"{network / 'config.json'} has no sample_size; add the image size in pixels.")
        if config.get("time_embedding_type") == "fourier" and trained.family != "ve":
            raise BackboneError(
                f"{network / 'config.json'} has a fourier time embedding, which goes with a ScoreSdeVeScheduler only."
            )
    model = load_component(family, network, config, facts=facts)
    try:
        if family is DiTTransformer2DModel:
            return DiTDenoiser(model, trained, num_classes=stored.get("num_classes"))
        settings = _unet_settings(stored, trained, model)
        if trained.family == "numbered":
            return UNetDenoiser(model, trained.schedule, settings=settings)
        return SigmaUNetDenoiser(model, trained, num_classes=settings.num_classes)
    except BackboneError as error:
        raise BackboneError(f"{path}: {error}") from error


def _family(path: Path, network: Path, config: Mapping[str, Any]) -> Any:
    name = config.get("_class_name", "UNet2DModel")
    if name == "UNet2DModel":
        return UNet2DModel
    # The published DiT checkpoints still bear the name of the class that DiT was split from.
    if name == "DiTTransformer2DModel" or (name == "Transformer2DModel" and config.get("norm_type") == "ada_norm_zero"):
        return DiTTransformer2DModel
    index = path / "model_index.json"
    pipeline = read_json(index).get("_class_name", "pipeline") if index.is_file() else "pipeline"
    raise BackboneError(
        f"{network / 'config.json'} is of a {name} (of a {pipeline}); supported are UNet2DModel, "
        "DiTTransformer2DModel and the text-to-image pipelines listed in docs/backbones.md."
    )


def _conditions_found(stored: Mapping[str, Any]) -> list[str]:
    named = [f"{entry['name']} ({', '.join(entry['values'])})" for entry in stored.get(_CONDITIONS, [])]
    return [f"conditions: {', '.join(named)}"] if named else []


def _kind_of(configs: Mapping[str, Mapping[str, Any]], trained: TrainedNoise) -> str:
    """A pipeline's family, in words."""
    noise = {"numbered": "numbered noise levels", "ve": "variance exploding", "vp": "variance preserving", "edm": "EDM"}
    network = configs["network"].get("_class_name", "UNet2DModel")
    latent = f", latents of {configs['autoencoder']['_class_name']}" if "autoencoder" in configs else ""
    return f"{network}, {noise[trained.family]}, predicts {trained.prediction_type}{latent}"


def _settings_sha256(configs: Mapping[str, Mapping[str, Any]], stored: Mapping[str, Any]) -> str:
    # Keys with an underscore say which version saved a config, and where.
    roles = {
        role: {key: value for key, value in config.items() if not key.startswith("_")}
        for role, config in configs.items()
    }
    return joint_sha256({role: json.dumps(config, sort_keys=True) for role, config in (roles | {"": stored}).items()})


def _betas_config(schedule: NoiseSchedule) -> dict[str, object]:
    num_steps = schedule.num_steps
    if not np.array_equal(schedule.timesteps, np.arange(num_steps)):
        raise BackboneError("a respaced schedule cannot be saved; pass the one that the model was trained on.")
    if np.array_equal(schedule.abar, NoiseSchedule.cosine(num_steps).abar):
        return {"beta_schedule": "squaredcos_cap_v2"}
    if np.array_equal(schedule.abar, NoiseSchedule.linear(num_steps).abar):
        scale = 1000 / num_steps
        return {"beta_schedule": "linear", "beta_start": scale * 1e-4, "beta_end": scale * 0.02}
    return {"trained_betas": schedule.beta.tolist()}


def _unet_settings(stored: Mapping[str, Any], trained: TrainedNoise, unet: UNet2DModel) -> UNetSettings:
    plain = UNetSettings(
        prediction_type=trained.prediction_type,
        variance_type=trained.variance_type,
        num_classes=unet.config.num_class_embeds,
    )
    known = [*(name for name in asdict(plain) if name != "factors"), _CONDITIONS]
    unknown = [name for name in stored if name not in known]
    if unknown:
        raise BackboneError(f"{_SETTINGS} has the unknown entry {unknown[0]}; it takes {', '.join(known)}.")
    settings = replace(plain, **{name: value for name, value in stored.items() if name != _CONDITIONS})
    if _CONDITIONS not in stored:
        return settings
    try:
        return replace(settings, factors=Factors.from_json(stored[_CONDITIONS]))
    except ValueError as error:
        raise BackboneError(f"{_SETTINGS}: {error}") from error


def _settings_json(settings: UNetSettings) -> dict[str, Any]:
    """As minority.json has them; conditions are there where there are any."""
    content = {name: value for name, value in asdict(settings).items() if name != "factors"}
    return content if settings.factors is None else content | {_CONDITIONS: settings.factors.to_json()}
