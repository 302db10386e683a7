"""Training a backbone: reads the training split, trains, evaluates the result, writes it with a model card."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DModel
from numpy.typing import NDArray
from prefect import task
from prefect.cache_policies import NO_CACHE

from datasets.storage.canonical import canonical_json, parse_json
from minority.backbones import Backbone, UNetSettings, load_backbone, save_folder
from minority.diffusion.schedule import NoiseSchedule
from minority.evaluation.backbone_quality import QualitySettings, bound_of, check_quality, measure_quality
from minority.evaluation.backbone_quality_figures import BackboneQuality
from minority.evaluation.factor_fidelity import FactorFidelity, measure_fidelity
from minority.features import build_extractor
from minority.runtime.image_arrays import Images, choose_images
from minority.training import Evaluations, Progress, train_denoiser
from minority.training.process_group import ProcessGroup, SingleProcess
from minority.training.watch import Watch
from tasks.backbone.model_card import QUALITY_FILE, model_card
from tasks.backbone.network import build_network, condition_rows, condition_values
from tasks.backbone.progress_folder import TrainingFolder
from tasks.backbone.tracked import TrackedTraining
from tasks.backbone.train_text import PICTURE, evaluate_text_backbone, train_text_backbone
from tasks.backbone.training_processes import train_in_processes
from tasks.config.paths import project_path
from tasks.config.runs import TrainBackboneConfig
from tasks.errors import InputError
from tasks.execution.progress import stage
from tasks.execution.showing import artifact_key, show_picture
from tasks.inputs.real_data import RealData, load_real_data
from tasks.inputs.workspace import choose_device

OnEvaluation = Callable[[Path], None]
#: Of every combination of conditions, at least, for the card.
_LEAST_SAMPLES = 16


@task(task_run_name="train {config.name}", cache_policy=NO_CACHE, persist_result=False)
def train(config: TrainBackboneConfig) -> str:
    """Train, from the last checkpoint where there is one. Returns the backbone's folder.

    Raises:
        InputError: The data cannot be read, the architecture does not fit them, or MLflow is asked for and cannot be
            used.
    """
    tracked = TrackedTraining(config, TrainingFolder(progress_folder(config)))
    folder = _train(config, tracked)
    tracked.finish(quality_figures(config) if config.quality is not None else None)
    return folder


def _train(config: TrainBackboneConfig, tracked: TrackedTraining) -> str:
    if config.text is not None:
        with stage("training", unit="steps") as on_done:

            def tell(done: int, total: int) -> None:
                on_done(done, total)
                tracked.tell()

            train_text_backbone(config, config.text, on_done=tell)
        if config.quality is None:
            (project_path(config.out) / QUALITY_FILE).unlink(missing_ok=True)
            return str(project_path(config.out))
        evaluate_text_backbone(config, config.text)
        picture = progress_folder(config) / PICTURE
        show_picture(
            picture.read_bytes(), key=artifact_key(config.name, "samples"), description="Plain samples by their prompts"
        )
        return str(project_path(config.out))
    check_data(config, load_real_data(config.dataset))
    with stage("training", unit="steps") as on_done:

        def report(step: int) -> None:
            on_done(step, config.training.steps)
            tracked.tell()

        def show(picture: Path) -> None:
            show_picture(
                picture.read_bytes(),
                key=artifact_key(config.name, picture.stem),
                description="Plain samples while it trains",
            )

        if config.processes > 1:
            train_in_processes(config, folder=progress_folder(config), on_step=report, on_evaluation=show)
        else:
            train_here(
                config, process_group=SingleProcess(choose_device(config.device)), on_step=report, on_evaluation=show
            )
    if config.quality is None:
        _write_card(config, load_real_data(config.dataset), _load(config), quality=None)
    else:
        evaluate(config)
    _checkpoint(config).unlink(missing_ok=True)  # until here, a death costs no training
    return str(project_path(config.out))


def train_here(
    config: TrainBackboneConfig,
    *,
    process_group: ProcessGroup,
    on_step: Callable[[int], None],
    on_evaluation: OnEvaluation,
) -> None:
    """Train in this process, alone or as one of a process group; the first of them writes the folder.

    Args:
        config: What to train.
        process_group: The processes that train together.
        on_step: Called with the steps done.
        on_evaluation: Called with the picture of every evaluation.

    Raises:
        InputError: The architecture does not fit the images, or the checkpoint belongs to another run.
    """
    if process_group.device.type == "cpu":
        torch.set_num_threads(1)
    real = load_real_data(config.dataset)
    unet, settings = build_network(config, real)
    schedule = getattr(NoiseSchedule, config.schedule)(config.timesteps)
    out = project_path(config.out)
    training_log = TrainingFolder(progress_folder(config))

    def report(progress: Progress) -> None:
        training_log.add_losses(progress)
        on_step(progress.step)

    def keep(length: float, network: torch.nn.Module) -> None:
        assert isinstance(network, UNet2DModel), "as it was built"
        save_folder(averages_folder(config) / f"{length:g}", network.cpu(), schedule=schedule, settings=settings)

    try:
        train_denoiser(
            unet,
            real.train_images,
            condition_rows(config, real.train.groups, real),
            schedule=schedule,
            settings=config.training,
            checkpoint=_checkpoint(config),
            on_progress=report,
            evaluations=_evaluations(
                config,
                real,
                settings,
                training_log=training_log,
                process_group=process_group,
                on_evaluation=on_evaluation,
            ),
            on_average=keep,
            process_group=process_group,
        )
    except ValueError as error:
        raise InputError(str(error)) from error
    if process_group.rank == 0:
        save_folder(out, unet.cpu(), schedule=schedule, settings=settings)


def check_data(config: TrainBackboneConfig, real: RealData) -> None:
    """Refuse images that the backbone could not be evaluated on, before it is trained.

    Raises:
        InputError: What is missing, and the way out.
    """
    if config.quality is None:
        return
    try:
        check_quality(config.quality, held_out=len(real.validation), classes=len(set(real.train.labels.tolist())))
    except ValueError as error:
        raise InputError(str(error)) from error


def evaluate(config: TrainBackboneConfig) -> Path:
    """Evaluate the backbone in `config.out` by its plain samples and by held-out images, and write its model card.

    Returns:
        The card.

    Raises:
        InputError: There is no such backbone, or nothing to evaluate it on.
    """
    if config.text is not None:
        return evaluate_text_backbone(config, config.text)
    if config.quality is None:
        raise InputError("quality is null, so there is nothing to evaluate by; leave it out, or give its settings.")
    real = load_real_data(config.dataset)
    held_out, labels = real.validation_images, real.validation.labels
    device = choose_device(config.device)
    backbone = _load(config)
    try:
        quality = measure_quality(
            backbone,
            train=real.train_images,
            train_labels=real.train.labels,
            held_out=held_out,
            held_out_labels=labels,
            settings=config.quality,
            device=device,
        )
        fidelity = None
        if backbone.factors is not None:
            combinations = math.prod(len(factor.values) for factor in backbone.factors.factors)
            fidelity = measure_fidelity(
                backbone,
                train=real.train_images,
                train_values=condition_values(backbone.factors, real.train.groups, real),
                held_out=held_out,
                held_out_values=condition_values(backbone.factors, real.validation.groups, real),
                samples=max(_LEAST_SAMPLES, config.quality.samples // combinations),
                steps=config.quality.sampling_steps,
                seed=config.quality.seed,
                device=device,
            )
    except ValueError as error:
        raise InputError(str(error)) from error
    averages = _bits_of_averages(config, config.quality, held_out, labels, device=device)
    return _write_card(config, real, backbone, quality=quality, averages=averages, fidelity=fidelity)


def quality_figures(config: TrainBackboneConfig) -> dict[str, Any] | None:
    """The figures of the model card of the backbone in `config.out`; None where it was not evaluated."""
    path = project_path(config.out) / QUALITY_FILE
    if not path.exists():
        return None
    figures: dict[str, Any] = parse_json(path.read_bytes(), name=str(path))
    return figures


def _load(config: TrainBackboneConfig) -> Backbone:
    try:
        return load_backbone(project_path(config.out))
    except ValueError as error:
        raise InputError(str(error)) from error


def _write_card(
    config: TrainBackboneConfig,
    real: RealData,
    backbone: Backbone,
    *,
    quality: BackboneQuality | None,
    averages: Mapping[str, float] | None = None,
    fidelity: FactorFidelity | None = None,
) -> Path:
    folder = project_path(config.out)
    assert isinstance(backbone.denoiser, torch.nn.Module), "folders hold networks"
    parameters = sum(parameter.numel() for parameter in backbone.denoiser.parameters())
    card, figures = folder / "README.md", folder / QUALITY_FILE
    text = model_card(config, real, parameters=parameters, quality=quality, averages=averages, fidelity=fidelity)
    card.write_text(text, encoding="utf-8")
    if quality is None:
        figures.unlink(missing_ok=True)
    else:
        measured = asdict(quality) | {"memorised": quality.memorised, "averages": dict(averages or {})}
        measured |= {} if fidelity is None else {"fidelity": asdict(fidelity)}
        figures.write_bytes(canonical_json(measured))
    return card


def progress_folder(config: TrainBackboneConfig) -> Path:
    """What the run tells while it runs (tasks/backbone/progress_folder.py)."""
    out = project_path(config.out)
    return out.with_name(f"{out.name}.progress")


def averages_folder(config: TrainBackboneConfig) -> Path:
    """The backbones of further averages, named by their lengths."""
    out = project_path(config.out)
    return out.with_name(f"{out.name}.averages")


def _checkpoint(config: TrainBackboneConfig) -> Path:
    out = project_path(config.out)
    return out.with_name(f"{out.name}.checkpoint.pt")


def _bits_of_averages(
    config: TrainBackboneConfig,
    quality: QualitySettings,
    held_out: Images,
    labels: NDArray[np.int64],
    *,
    device: str,
) -> dict[str, float]:
    """Bits/dim of held-out images by every average that was kept, the one in `out` first; empty where it is alone."""
    folders = {f"{length:g}": averages_folder(config) / f"{length:g}" for length in config.training.average_lengths}
    folders = {name: folder for name, folder in folders.items() if folder.is_dir()}
    if not folders:
        return {}
    steps, seed = quality.bits_steps, quality.seed
    some = choose_images(len(held_out), most=quality.bits_images, seed=seed)

    def bits(folder: Path) -> float:
        backbone = load_backbone(folder)
        return float(bound_of(backbone, held_out[some], labels[some], steps=steps, seed=seed, device=device).mean())

    return {name: bits(folder) for name, folder in ({"exponential": project_path(config.out)} | folders).items()}


def _evaluations(
    config: TrainBackboneConfig,
    real: RealData,
    unet: UNetSettings,
    *,
    training_log: TrainingFolder,
    process_group: ProcessGroup,
    on_evaluation: OnEvaluation,
) -> Evaluations | None:
    if config.watch is None or process_group.rank > 0:
        return None
    watch = Watch(
        real.validation_images,
        real.validation.labels,
        extract=build_extractor(
            (config.quality or QualitySettings()).features,
            train_images=real.train_images,
            train_labels=real.train.labels,
            device=process_group.device,
        ),
        schedule=getattr(NoiseSchedule, config.schedule)(config.timesteps),
        unet=unet,
        settings=config.watch,
        device=process_group.device,
    )

    def evaluate(step: int, network: torch.nn.Module) -> None:
        assert isinstance(network, UNet2DModel), "as it was built"
        on_evaluation(training_log.add_evaluation(step, watch.evaluate(network), class_names=real.train.class_names))

    return Evaluations(every=config.watch.every, call=evaluate)
