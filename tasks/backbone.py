"""Training a backbone: reads the training split, trains, judges the result, writes it with a model card."""

from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DModel
from prefect import task
from prefect.cache_policies import NO_CACHE

from minority.backbones import UNetSettings, load_backbone, save_folder
from minority.backbones.quality import BackboneQuality, measure_quality
from minority.schedule import NoiseSchedule
from minority.training import Progress, train_denoiser
from tasks.config import TrainBackboneConfig, project_path
from tasks.errors import InputError
from tasks.progress import stage
from tasks.real_data import RealData, load_real_data
from tasks.workspace import choose_device


@task(cache_policy=NO_CACHE, persist_result=False)
def train(config: TrainBackboneConfig) -> str:
    """Train, from the last checkpoint where there is one. Returns the backbone's folder.

    Raises:
        InputError: The data cannot be read, or the architecture does not fit them.
    """
    real = load_real_data(config.dataset)
    device = choose_device(config.device)
    if device == "cpu":
        torch.set_num_threads(1)
    unet = _build(config, real)
    schedule = getattr(NoiseSchedule, config.schedule)(config.timesteps)
    out = project_path(config.out)
    checkpoint = out.with_name(f"{out.name}.checkpoint.pt")
    with stage("training") as on_done:

        def report(progress: Progress) -> None:
            on_done(progress.step, progress.steps)

        train_denoiser(
            unet,
            real.train.images(range(len(real.train))),
            real.train.labels,
            schedule=schedule,
            settings=config.training,
            checkpoint=checkpoint,
            on_progress=report,
            device=device,
        )
    settings = UNetSettings(num_classes=len(real.train.class_names))
    save_folder(out, unet.cpu(), schedule=schedule, settings=settings, card="")
    quality = measure(out, real)
    save_folder(out, unet, schedule=schedule, settings=settings, card=model_card(config, real, unet, quality=quality))
    checkpoint.unlink(missing_ok=True)
    return str(out)


def measure(folder: Path, real: RealData) -> BackboneQuality:
    """Judge a trained backbone by its plain samples and by held-out images."""
    return measure_quality(
        load_backbone(folder),
        train=real.train.images(range(len(real.train))),
        train_labels=real.train.labels,
        held_out=real.validation.images(range(len(real.validation))),
        held_out_labels=real.validation.labels,
    )


def _build(config: TrainBackboneConfig, real: RealData) -> UNet2DModel:
    height, width, channels = real.train.image_shape
    if height != width:
        raise InputError(f"the backbone needs square images, {real.train.name} has {height} x {width} pixels.")
    with torch.random.fork_rng():
        torch.manual_seed(config.training.seed)
        try:
            return UNet2DModel(
                sample_size=height,
                in_channels=channels,
                out_channels=channels,
                num_class_embeds=len(real.train.class_names),
                **config.architecture.model_dump(),
            )
        except ValueError as error:
            raise InputError(f"architecture: {error}") from error


def model_card(config: TrainBackboneConfig, real: RealData, unet: UNet2DModel, *, quality: BackboneQuality) -> str:
    """The model card: what it is, what it saw, how good it is, and the command that makes it again."""
    counts = ", ".join(str(count) for count in np.bincount(real.train.labels).tolist())
    height, width, channels = real.train.image_shape
    return f"""# Backbone `{config.name}`

A class-conditional diffusion model (diffusers `UNet2DModel`, {sum(p.numel() for p in unet.parameters()):,} parameters)
for images of {height}x{width}x{channels}, {len(real.train.class_names)} classes.

- **Data**: the training split alone, {len(real.train)} images; by class: {counts}. It saw no validation or test image.
- **Licence of the data**: {real.licence}
- **Training**: {config.training.steps} steps of {config.training.batch_size} images, seed {config.training.seed}, \
{config.schedule} schedule of {config.timesteps} timesteps, averaged weights.
- **Made by**: `minority train-backbone {config.name}`

## Quality

{quality.to_markdown()}

## Limits

It is meant for demonstrations and tests of this project. It knows nothing but these classes, and the rarest of them
from {int(np.bincount(real.train.labels).min())} images.
"""
