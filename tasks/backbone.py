"""Training a backbone: reads the training split, trains, judges the result, writes it with a model card."""

from pathlib import Path

import torch
from diffusers import UNet2DModel
from prefect import task
from prefect.cache_policies import NO_CACHE

from minority.backbones import UNetSettings, load_backbone, save_folder
from minority.backbones.quality import check_quality, measure_quality
from minority.schedule import NoiseSchedule
from minority.training import Progress, train_denoiser
from tasks.config import TrainBackboneConfig, project_path
from tasks.errors import InputError
from tasks.model_card import model_card
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
    check_data(config, real)
    device = choose_device(config.device)
    if device == "cpu":
        torch.set_num_threads(1)
    unet = _build(config, real)
    schedule = getattr(NoiseSchedule, config.schedule)(config.timesteps)
    out = project_path(config.out)
    checkpoint = out.with_name(f"{out.name}.checkpoint.pt")
    with stage("training", unit="steps") as on_done:

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
    save_folder(out, unet.cpu(), schedule=schedule, settings=settings)
    checkpoint.unlink(missing_ok=True)
    judge(config)
    return str(out)


def check_data(config: TrainBackboneConfig, real: RealData) -> None:
    """Refuse images that the backbone could not be judged on, before it is trained.

    Raises:
        InputError: What is missing, and the way out.
    """
    try:
        check_quality(config.quality, held_out=len(real.validation), classes=len(set(real.train.labels.tolist())))
    except ValueError as error:
        raise InputError(str(error)) from error


def judge(config: TrainBackboneConfig) -> Path:
    """Judge the backbone in `config.out` by its plain samples and by held-out images, and write its model card.

    Returns:
        The card.

    Raises:
        InputError: There is no such backbone, or nothing to judge it on.
    """
    real = load_real_data(config.dataset)
    folder = project_path(config.out)
    try:
        backbone = load_backbone(folder)
        quality = measure_quality(
            backbone,
            train=real.train.images(range(len(real.train))),
            train_labels=real.train.labels,
            held_out=real.validation.images(range(len(real.validation))),
            held_out_labels=real.validation.labels,
            settings=config.quality,
            device=choose_device(config.device),
        )
    except ValueError as error:
        raise InputError(str(error)) from error
    assert isinstance(backbone.denoiser, torch.nn.Module), "folders hold networks"
    parameters = sum(parameter.numel() for parameter in backbone.denoiser.parameters())
    card = folder / "README.md"
    card.write_text(model_card(config, real, parameters=parameters, quality=quality), encoding="utf-8")
    return card


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
