"""Training a small text-to-image backbone on captions made of a set's groups, and evaluating it."""

import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.contact_sheet import contact_sheet
from datasets.storage.canonical import canonical_json
from datasets.storage.escaping import for_markdown
from minority.backbones import Backbone, load_backbone
from minority.backbones.text.folder import TextToImage
from minority.backbones.text.prompts import Prompts
from minority.evaluation.backbone_quality_figures import MEMORISED_BELOW
from minority.evaluation.prompt_quality import PromptQuality, PromptQualitySettings, measure_prompts
from minority.runtime.image_arrays import choose, in_colour
from minority.training import Progress
from minority.training.text.loop import CaptionedImages, train_text_model
from minority.training.text.networks import build_parts, save_parts
from tasks.backbone.model_card import QUALITY_FILE, command
from tasks.backbone.progress_folder import TrainingFolder
from tasks.config.paths import project_path
from tasks.config.runs import TrainBackboneConfig
from tasks.config.sections import TextModelConfig
from tasks.errors import InputError
from tasks.inputs.group_prompts import prompts_for
from tasks.inputs.real_data import RealData, load_real_data
from tasks.inputs.real_images import images_of
from tasks.inputs.workspace import prepare_device

PICTURE = "samples.png"  # of the evaluated backbone, in its progress folder
_A_ROW = 10  # samples of a group in the picture
_MOST_ROWS = 12


def train_text_backbone(
    config: TrainBackboneConfig, text: TextModelConfig, *, on_done: Callable[[int, int], None]
) -> None:
    """Train from the last checkpoint, or from the start, and write the folder.

    Raises:
        InputError: A caption cannot be made or is too long, the images are not square, or a checkpoint is not this
            run's.
    """
    device = prepare_device(config.device)
    real = load_real_data(config.dataset)
    height, width, _ = real.train.image_shape
    if height != width:
        raise InputError(f"the backbone needs square images, {real.train.name} has {height} x {width} pixels.")
    prompts = prompts_for(text.prompts, real)
    captions = [prompts.texts[group] for group in real.train_groups]
    out, training_folder = project_path(config.out), TrainingFolder(progress_folder(config))
    total = text.model.autoencoder_steps + text.model.steps

    def report(name: str, progress: Progress) -> None:
        before = 0 if name == "autoencoder" else text.model.autoencoder_steps
        training_folder.add_losses(Progress(before + progress.step, total, progress.loss))
        on_done(before + progress.step, total)

    try:
        parts = build_parts(_words(prompts, text), text.model, size=height)
        train_text_model(
            parts,
            CaptionedImages(in_colour(images_of(real.train)), captions),
            settings=text.model,
            folder=training_folder.path,
            on_progress=report,
            device=device,
        )
    except ValueError as error:
        raise InputError(f"text: {error}") from error
    save_parts(out, parts)


def evaluate_text_backbone(config: TrainBackboneConfig, text: TextModelConfig) -> Path:
    """Evaluate the backbone in `config.out` and write its model card.

    Returns:
        The card.

    Raises:
        InputError: There is no such backbone, or nothing to evaluate it on.
    """
    device = prepare_device(config.device)
    real, folder = load_real_data(config.dataset), project_path(config.out)
    prompts = prompts_for(text.prompts, real)
    try:
        backbone = load_backbone(folder, text=TextToImage(prompts=prompts))
        figures, samples, asked = measure_on(real, backbone, settings=text.quality, device=device)
    except ValueError as error:
        raise InputError(str(error)) from error
    texts = [group[0] for group in prompts.texts]
    shown = np.linspace(0, len(texts) - 1, min(len(texts), _MOST_ROWS)).astype(int)
    rows = [(texts[group], list(samples[asked == group][:_A_ROW])) for group in shown]
    picture = progress_folder(config) / PICTURE
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(contact_sheet(rows, image_shape=real.train.image_shape, columns=_A_ROW))
    card = folder / "README.md"
    card.write_text(_card(config, text, real, figures, prompts), encoding="utf-8")
    write_quality(folder, figures, prompts)
    return card


def measure_on(
    real: RealData, backbone: Backbone, *, settings: PromptQualitySettings, device: str
) -> tuple[PromptQuality, NDArray[np.uint8], NDArray[np.int64]]:
    """Evaluate a text-to-image backbone on real images; see `measure_prompts`.

    Raises:
        ValueError: Where there is no held-out image, or the backbone takes no classifier-free guidance.
    """
    known = np.flatnonzero(real.validation_groups >= 0)
    return measure_prompts(
        backbone,
        train=real.train_images,
        train_groups=real.train_groups,
        held_out=choose(real.validation_images, known),
        held_out_groups=real.validation_groups[known],
        settings=settings,
        device=device,
    )


def progress_folder(config: TrainBackboneConfig) -> Path:
    """What the run tells while it runs, its checkpoints included."""
    out = project_path(config.out)
    return out.with_name(f"{out.name}.progress")


def write_quality(folder: Path, quality: PromptQuality, prompts: Prompts) -> None:
    """Write the figures of the card for programs, the prompt that is obeyed least by its text."""
    group, share = quality.worst
    worst = {"prompt": prompts.texts[group][0], "obeyed": share}
    figures = asdict(quality) | {"worst": worst, "memorised": quality.memorised}
    (folder / QUALITY_FILE).write_bytes(canonical_json(figures))


def quality_table(quality: PromptQuality, settings: PromptQualitySettings, prompts: Prompts) -> str:
    """Whether prompts are obeyed, and whether it memorised, as Markdown."""
    worst = prompts.texts[quality.worst[0]][0]
    return f"""| figure | value |
|---|---|
| plain samples that obey their prompt (DDIM, {settings.sampling_steps} steps, classifier-free {settings.scale:g}) \
| {quality.obeyed:.1%} of {quality.samples} |
| the prompt obeyed least | "{for_markdown(worst)}", {quality.worst[1]:.0%} |
| held-out real images whose group the same classifier sees | {quality.recognised:.1%} |
| samples inside the k-NN manifold of the training images (pixels) | {quality.valid:.1%} |
| mean distance to the nearest training image (pixels): samples | {quality.sample_distance:.3f} |
| the same: held-out real images | {quality.held_out_distance:.3f} |
| memorised (samples nearer than {MEMORISED_BELOW:g} of held-out) | {"yes" if quality.memorised else "no"} |

A prompt counts as obeyed where a classifier that was trained on the real training images alone sees its group."""


def _card(
    config: TrainBackboneConfig, text: TextModelConfig, real: RealData, quality: PromptQuality, prompts: Prompts
) -> str:
    height, width, _ = real.train.image_shape
    settings = text.model
    examples = ", ".join(f'"{for_markdown(caption)}"' for caption in prompts.texts[0])
    return f"""# Backbone `{config.name}`

A text-to-image diffusion model in miniature, laid out as Stable Diffusion 1.x (diffusers' `StableDiffusionPipeline`:
CLIP text encoder, `UNet2DConditionModel`, `AutoencoderKL`), for images of {height}x{width}.

- **Data**: the training split alone, {len(real.train)} images of {len(set(real.train.identities or ()))} things; it \
saw no validation or test image.
- **Captions**: made of the set's groups, such as {examples}.
- **Licence of the data**: {for_markdown(real.licence)}
- **Training**: the autoencoder {settings.autoencoder_steps} steps, U-Net and text encoder {settings.steps} steps of \
{settings.batch_size} images, seed {settings.seed}, averaged weights, stored in fp16.
- **Made by**: `{command("train-backbone", config)}`
- **Evaluated by**: `{command("evaluate-backbone", config)}`

## Quality

{quality_table(quality, text.quality, prompts)}

## Limits

It is meant for demonstrations and tests of this project. It knows nothing but these captions' words; all others are
spelled in letters that it never saw.
"""


def _words(prompts: Prompts, text: TextModelConfig) -> list[str]:
    """All words of the captions, and the further ones, in small letters."""
    used = {word for caption in prompts.flat for word in re.findall(r"[^\W\d_]+", caption.lower())}
    return sorted(used | set(text.words))
