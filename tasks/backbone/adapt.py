"""Adapting a text-to-image backbone to the training split of a set, and evaluating what came of it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from prefect import task
from prefect.cache_policies import NO_CACHE

from datasets.contact_sheet import contact_sheet
from datasets.storage.escaping import for_markdown
from minority.backbones import Backbone
from minority.sampling.draw import draw_images
from minority.training import Progress
from minority.training.text.adaptation import adapt, words_in
from minority.training.text.adapter_files import save_adapted
from minority.training.text.loop import CaptionedImages
from tasks.backbone.model_card import command
from tasks.backbone.progress_folder import TrainingFolder
from tasks.backbone.train_text import measure_on, quality_table, write_quality
from tasks.config.paths import project_path
from tasks.config.runs import AdaptConfig
from tasks.config.sections import AdapterConfig
from tasks.errors import InputError
from tasks.execution.progress import stage
from tasks.execution.showing import artifact_key, show_picture
from tasks.inputs.group_prompts import prompts_for
from tasks.inputs.real_data import RealData, load_real_data
from tasks.inputs.real_images import images_of
from tasks.inputs.workspace import open_fitting_backbone, prepare_device

_A_ROW = 8
_MOST_ROWS = 12
_CHECKPOINT = "adapter.pt"


@task(task_run_name="adapt to {config.name}", cache_policy=NO_CACHE, persist_result=False)
def adapt_backbone(config: AdaptConfig) -> str:
    """Learn from the last checkpoint on, or from the start; evaluate; write the card. Returns the adapter's folder.

    Raises:
        InputError: The backbone cannot be adapted, or the data do not fit it.
    """
    with stage("adapting", unit="steps") as on_done:

        def show(picture: Path) -> None:
            show_picture(
                picture.read_bytes(),
                key=artifact_key(config.name, picture.stem),
                description="Plain samples while it adapts",
            )

        folder = learn(config, on_done=on_done, on_picture=show)
    evaluate_adapter(config)
    (progress_folder(config) / _CHECKPOINT).unlink(missing_ok=True)  # until here, a death costs no training
    return str(folder)


def learn(config: AdaptConfig, *, on_done: Callable[[int, int], None], on_picture: Callable[[Path], None]) -> Path:
    """Learn the adapter and write its files.

    Args:
        config: What is adapted to what.
        on_done: Called with the steps done and their number.
        on_picture: Called with every picture of plain samples.

    Raises:
        InputError: The backbone cannot be adapted, a caption is too long, or a checkpoint is not this run's.
    """
    device, real = prepare_device(config.device), load_real_data(config.dataset)
    backbone = _require_adaptable(open_fitting_backbone(config.backbone, real))
    assert backbone.prompts is not None, "checked"
    data = CaptionedImages(images_of(real.train), [backbone.prompts.texts[group] for group in real.train_groups])
    training_folder = TrainingFolder(progress_folder(config))

    def report(progress: Progress) -> None:
        training_folder.add_losses(progress)
        on_done(progress.step, progress.steps)

    def evaluate(step: int, adapted: Backbone) -> None:
        picture = training_folder.path / f"samples-{step:08d}.png"
        picture.write_bytes(_picture(config, adapted, real))
        on_picture(picture)

    denoiser, folder = backbone.denoiser, project_path(config.out)
    try:
        learned = adapt(
            backbone.to(device).in_precision(config.adaptation.precision),
            denoiser.encoders.load(),  # type: ignore[attr-defined]
            data,
            settings=config.adaptation,
            checkpoint=training_folder.path / _CHECKPOINT,
            on_progress=report,
            on_evaluation=evaluate,
        )
    except ValueError as error:
        raise InputError(f"adaptation: {error}") from error
    return save_adapted(folder, learned, part=denoiser.family.part)  # type: ignore[attr-defined]


def evaluate_adapter(config: AdaptConfig) -> Path:
    """Evaluate the backbone with the adapter of `config.out`, and write the card.

    Returns:
        The card.

    Raises:
        InputError: There is no such adapter, or no held-out image.
    """
    device, real, folder = prepare_device(config.device), load_real_data(config.dataset), project_path(config.out)
    section = config.backbone.model_copy(
        update={"adapters": (*config.backbone.adapters, AdapterConfig(path=str(folder)))}
    )
    backbone = open_fitting_backbone(section, real)
    try:
        figures, _, _ = measure_on(real, backbone, settings=config.quality, device=device)
    except ValueError as error:
        raise InputError(f"quality: {error}") from error
    assert config.backbone.prompts is not None, "checked with the config"
    prompts = prompts_for(config.backbone.prompts, real)
    words = ", ".join(f"`{word}`" for word in words_in(prompts.texts)) or "none"
    adapter_lines = "\n".join(f"- {for_markdown(line)}" for line in backbone.facts if line.startswith("adapter: "))
    card = folder / "README.md"
    card.write_text(
        f"""# Adapter `{config.name}` of `{backbone.name}`

- **Data**: the training split alone, {len(real.train)} images of {len(real.groups)} groups; it saw no validation or \
test image.
- **Licence of the data**: {for_markdown(real.licence)}
- **Licence of the model**: that of {backbone.name}; an adapter is made of it.
- **Learned words**: {words}
- **Training**: {config.adaptation.steps} steps of {config.adaptation.batch_size} images, seed {config.adaptation.seed}.
- **Made by**: `{command("adapt", config)}`
{adapter_lines}

Used by `backbone.adapters: [{config.out}]`, with prompts of the same words.

{quality_table(figures, config.quality, prompts)}
""",
        encoding="utf-8",
    )
    write_quality(folder, figures, prompts)
    return card


def progress_folder(config: AdaptConfig) -> Path:
    """What the run tells while it runs, its checkpoint included."""
    out = project_path(config.out)
    return out.with_name(f"{out.name}.progress")


def _require_adaptable(backbone: Backbone) -> Backbone:
    if backbone.prompts is None:
        raise InputError(f"backbone {backbone.name} takes no prompts; only text-to-image models are adapted.")
    if backbone.distilled is not None:
        raise InputError(
            f"backbone {backbone.name} is distilled ({backbone.distilled}), which training on noise would undo; adapt "
            "the model that it was distilled from, and use the adapter with either."
        )
    return backbone


def _picture(config: AdaptConfig, backbone: Backbone, real: RealData) -> bytes:
    """A row of plain samples for each of some prompts."""
    assert backbone.prompts is not None, "checked"
    texts = [texts[0] for texts in backbone.prompts.texts]
    shown = np.linspace(0, len(texts) - 1, min(len(texts), _MOST_ROWS)).astype(int).tolist()
    labels = [group for group in shown for _ in range(_A_ROW)]
    images, _ = draw_images(
        backbone, seed=config.quality.seed, indices=range(len(labels)), labels=labels, settings=config.quality.sampler
    )
    rows = [(texts[group], list(images[i * _A_ROW : (i + 1) * _A_ROW])) for i, group in enumerate(shown)]
    return contact_sheet(rows, image_shape=real.train.image_shape, columns=_A_ROW)
