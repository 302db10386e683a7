"""Backbones as diffusers folders: a DDPM pipeline with its U-Net, its scheduler, and a card.

    <folder>/unet/config.json + diffusion_pytorch_model.safetensors
    <folder>/scheduler/scheduler_config.json
    <folder>/model_index.json          lets bare diffusers open the folder as a pipeline
    <folder>/minority.json             what those two cannot say (UNetSettings); optional
    <folder>/README.md                 the model card

Folders of bare U-Nets (config.json and scheduler_config.json side by side) are read as well.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

from minority.backbones.backbone import Backbone, BackboneError, file_sha256, read_tensors
from minority.backbones.unet import UNetDenoiser, UNetSettings, build_on_meta, list_differences
from minority.schedule import NoiseSchedule

WEIGHTS = "diffusion_pytorch_model.safetensors"
_OLD_WEIGHTS = "diffusion_pytorch_model.bin"
_SETTINGS = "minority.json"
_OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


def load_folder(path: Path | str) -> Backbone:
    """Load a diffusers folder of a DDPM-like pipeline in pixel space.

    Args:
        path: The folder.

    Returns:
        The backbone on the CPU in fp32, its parameters without gradients.

    Raises:
        BackboneError: Where a file is missing or broken, or the weights do not fit the config.
    """
    path = Path(path)
    if not path.is_dir():
        raise BackboneError(f"{path} does not exist or is not a folder; give the path of a diffusers folder.")
    unet_folder = path / "unet" if (path / "unet").is_dir() else path
    scheduler_folder = path / "scheduler" if (path / "scheduler").is_dir() else path
    config = _read_json(unet_folder / "config.json")
    weights = unet_folder / WEIGHTS
    if not weights.is_file() and (unet_folder / _OLD_WEIGHTS).is_file():
        weights = unet_folder / _OLD_WEIGHTS
    unet = _fill(config, weights)
    scheduler = _read_json(scheduler_folder / "scheduler_config.json")
    schedule = _schedule(scheduler, source=scheduler_folder / "scheduler_config.json")
    try:
        denoiser = UNetDenoiser(unet, schedule, settings=_settings(path, scheduler, unet))
    except BackboneError as error:
        raise BackboneError(f"{path}: {error}") from error
    return Backbone(
        name=path.resolve().name,
        denoiser=denoiser,
        schedule=schedule,
        image_shape=denoiser.image_shape,
        num_classes=denoiser.settings.num_classes,
        sha256=file_sha256(weights),
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
    path, settings = Path(path), settings or UNetSettings()
    was_training = unet.training
    UNetDenoiser(unet, schedule, settings=settings)  # refuses what could not be loaded again
    unet.train(was_training)
    if path.exists() and not (path / "unet" / "config.json").is_file() and (path.is_file() or any(path.iterdir())):
        raise BackboneError(f"{path} exists and is not a backbone folder, so it is left alone; choose another path.")
    learns_variance = unet.config.out_channels != unet.config.in_channels // (2 if settings.low_resolution else 1)
    scheduler = DDPMScheduler(
        num_train_timesteps=schedule.num_steps,
        prediction_type=settings.prediction_type,
        variance_type="learned_range" if learns_variance else "fixed_small",
        **_betas_config(schedule),
    )
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    DDPMPipeline(unet=unet, scheduler=scheduler).save_pretrained(partial)
    (partial / _SETTINGS).write_text(json.dumps(asdict(settings), indent=2) + "\n", encoding="utf-8")
    (partial / "README.md").write_text(card or f"# {path.name}\n", encoding="utf-8")
    if path.exists():
        shutil.rmtree(path)
    partial.rename(path)
    return path


def _fill(config: Mapping[str, object], weights: Path) -> UNet2DModel:
    family, embedding = config.get("_class_name", "UNet2DModel"), config.get("time_embedding_type", "positional")
    if family != "UNet2DModel" or embedding == "fourier":
        raise BackboneError(
            f"{weights.parent / 'config.json'} is of a {family} with {embedding} time embedding; only UNet2DModel with "
            "positional or learned embedding is supported."
        )
    if config.get("sample_size") is None:
        raise BackboneError(f"{weights.parent / 'config.json'} has no sample_size; add the image size in pixels.")
    if not weights.is_file():
        raise BackboneError(f"{weights} is missing; the folder must hold the U-Net's weights.")
    tensors = {_modern_name(name): tensor.float() for name, tensor in read_tensors(weights).items()}
    unet = build_on_meta(config)
    difference = list_differences(
        {name: tuple(tensor.shape) for name, tensor in unet.state_dict().items()},
        {name: tuple(tensor.shape) for name, tensor in tensors.items()},
    )
    if difference:
        raise BackboneError(
            f"{weights} does not fit the config.json beside it ({difference}); take both from the same model."
        )
    unet.load_state_dict(tensors, strict=True, assign=True)
    return unet.eval().requires_grad_(False)


def _modern_name(name: str) -> str:
    for old, new in _OLD_ATTENTION.items():
        name = name.replace(old, new)
    return name


def _schedule(config: Mapping[str, object], *, source: Path) -> NoiseSchedule:
    num_steps = int(str(config.get("num_train_timesteps", 1000)))
    start, end = float(str(config.get("beta_start", 1e-4))), float(str(config.get("beta_end", 0.02)))
    kind = config.get("beta_schedule", "linear")
    if config.get("rescale_betas_zero_snr"):
        raise BackboneError(f"{source} asks for rescale_betas_zero_snr, which is not supported; use another model.")
    if config.get("trained_betas") is not None:
        return NoiseSchedule.from_betas(np.array(config["trained_betas"], dtype=np.float64))
    if kind == "linear":
        return NoiseSchedule.from_betas(np.linspace(start, end, num_steps, dtype=np.float64))
    if kind == "scaled_linear":
        return NoiseSchedule.from_betas(np.linspace(start**0.5, end**0.5, num_steps, dtype=np.float64) ** 2)
    if kind == "squaredcos_cap_v2":
        return NoiseSchedule.cosine(num_steps)
    raise BackboneError(
        f"{source} has beta_schedule {kind!r}; it must be linear, scaled_linear or squaredcos_cap_v2, or give "
        "trained_betas."
    )


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


def _settings(path: Path, scheduler: Mapping[str, object], unet: UNet2DModel) -> UNetSettings:
    if scheduler.get("variance_type") == "learned":
        raise BackboneError("variance_type 'learned' is not supported; a learned variance must be 'learned_range'.")
    plain = UNetSettings(
        prediction_type=scheduler.get("prediction_type", "epsilon"),  # type: ignore[arg-type]
        num_classes=unet.config.num_class_embeds,
    )
    if not (path / _SETTINGS).is_file():
        return plain
    stored = _read_json(path / _SETTINGS)
    unknown = [name for name in stored if name not in asdict(plain)]
    if unknown:
        raise BackboneError(f"{_SETTINGS} has the unknown entry {unknown[0]}; it takes {', '.join(asdict(plain))}.")
    return replace(plain, **stored)  # type: ignore[arg-type]


def _read_json(path: Path) -> dict[str, object]:
    if not path.is_file():
        raise BackboneError(f"{path} is missing; the folder must be laid out as diffusers saves a pipeline.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BackboneError(f"{path} is not JSON ({error}); fetch or copy it again.") from error
    if not isinstance(content, dict):
        raise BackboneError(f"{path} must hold a JSON object, it holds a {type(content).__name__}.")
    return content
