"""Images without the pipeline: draw some into a folder, score a folder."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from datasets.readers.folder import read_folder
from datasets.runs.shards import encode_png
from minority.backbones import Backbone
from minority.diffusion.chain import Variance
from minority.sampling.draw import SamplerSettings, ScoreSettings, draw_images, score_images
from minority.sampling.named_samplers import compare, contact_sheet
from tasks.config.presets import validate
from tasks.errors import InputError
from tasks.inputs.workspace import choose_device, open_named_backbone


def draw_to_folder(
    backbone: str,
    out: Path,
    *,
    num: int,
    sampler: Mapping[str, Any],
    labels: Sequence[int] | None,
    seed: int,
    flags: Mapping[str, Any],
) -> int:
    """Draw samples into `out`: grid.png and `<index>.png`, or `<index>-<label>.png` where there are labels.

    Args:
        backbone: Its path, hub id or entry point, or the YAML file of a backbone section.
        out: The folder, made where it is missing.
        num: How many.
        sampler: Dotted settings of SamplerSettings.
        labels: Labels to go through; None for all that the backbone knows.
        seed: Decides all noise.
        flags: ADM flags.

    Returns:
        How many were drawn.

    Raises:
        InputError: A setting, label or path that is not possible.
    """
    settings = _sampler_settings(sampler)
    model = open_named_backbone(backbone, flags)
    chosen = _labels(model, labels, num=num)
    images, _ = draw_images(
        model, seed=seed, indices=range(num), labels=chosen, settings=settings, device=choose_device("auto")
    )
    _write_images(images, out, chosen)
    (out / "grid.png").write_bytes(encode_png(_grid(images)))
    return num


def compare_to_folder(
    backbone: str,
    out: Path,
    names: Sequence[str],
    *,
    num: int,
    labels: Sequence[int] | None,
    seed: int,
    flags: Mapping[str, Any],
) -> dict[str, float]:
    """Draw the same seeds and labels by several samplers into `out`: a folder and a row of grid.png for each.

    Args:
        backbone: Its path, hub id or entry point, or the YAML file of a backbone section.
        out: The folder, made where it is missing.
        names: Samplers by name (minority/sampling/named_samplers.py); the grid's rows are in this order.
        num: How many samples of each.
        labels: Labels to go through; None for all that the backbone knows.
        seed: Decides all noise.
        flags: ADM flags.

    Returns:
        Denoiser evaluations a sample, by sampler.

    Raises:
        InputError: A name, label or path that is not possible.
    """
    model = open_named_backbone(backbone, flags)
    chosen = _labels(model, labels, num=num)
    try:
        drawn = compare(model, names, seed=seed, indices=range(num), labels=chosen, device=choose_device("auto"))
    except ValueError as error:
        raise InputError(str(error)) from error
    for name, result in drawn.items():
        _write_images(result.images, out / name, chosen)
    rows = [result.images for result in drawn.values()]
    enlarge = max(1, 32 // rows[0].shape[1])
    (out / "grid.png").write_bytes(encode_png(contact_sheet(rows, enlarge=enlarge)))
    return {name: result.evaluations for name, result in drawn.items()}


def score_folder(
    folder: Path,
    backbone: str,
    out: Path,
    *,
    seed: int,
    flags: Mapping[str, Any],
    settings: ScoreSettings | None = None,
) -> int:
    """Score every image of a folder into a Parquet file.

    Args:
        folder: Images of one size. Class-named subfolders, in sorted order, give the labels of a class-conditional
            backbone.
        backbone: Its path, hub id or entry point, or the YAML file of a backbone section.
        out: The Parquet file: file, label, minority_score, negative_elbo.
        seed: Decides all noise.
        flags: ADM flags.
        settings: How; None: with the variance that suits the backbone.

    Returns:
        How many were scored.

    Raises:
        InputError: Files, sizes or labels that do not fit the backbone.
    """
    model = open_named_backbone(backbone, flags)
    images = read_folder(folder)
    height, width, channels = images.image_shape
    if model.image_shape != (channels, height, width):
        raise InputError(
            f"{folder} holds images of {(channels, height, width)} (C, H, W), backbone {model.name} makes "
            f"{model.image_shape}; resize them or choose another backbone."
        )
    if model.num_classes is not None and len(images.class_names) > model.num_classes:
        raise InputError(
            f"{folder} has {len(images.class_names)} class folders, backbone {model.name} knows {model.num_classes}."
        )
    scores = score_images(
        model,
        images.images(range(len(images))),
        seed=seed,
        indices=range(len(images)),
        labels=None if model.num_classes is None else images.labels.tolist(),
        settings=settings or ScoreSettings(),
        device=choose_device("auto"),
    )
    table = pd.DataFrame(
        {
            "file": images.source_ids,
            "label": images.labels,
            "minority_score": scores.minority_score,
            "negative_elbo": scores.negative_elbo,
        }
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(out, index=False)
    return len(table)


def score_settings(*, variance: str, elbo_steps: int) -> ScoreSettings:
    """The settings of scores by the command line's options.

    Args:
        variance: Reverse variance of the bound's chain: auto, learned_range, fixed_small or fixed_large.
        elbo_steps: Steps of that chain.

    Raises:
        InputError: A variance that there is not.
    """
    if variance not in get_args(Variance):
        raise InputError(f"--variance must be one of {', '.join(get_args(Variance))}, got {variance!r}.")
    return ScoreSettings(variance=cast("Variance", variance), elbo_steps=elbo_steps)


class _Drawing(BaseModel):
    """The settings of SamplerSettings as a config of their own, in which unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")

    sampler: SamplerSettings


def _write_images(images: NDArray[np.uint8], out: Path, labels: Sequence[int] | None) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        name = f"{index:06d}" if labels is None else f"{index:06d}-{labels[index]}"
        (out / f"{name}.png").write_bytes(encode_png(image))


def _sampler_settings(dotted: Mapping[str, Any]) -> SamplerSettings:
    overrides = {f"sampler.{key}": value for key, value in dotted.items()}
    try:
        return validate(_Drawing, {"sampler": {}}, overrides=overrides).sampler
    except InputError as error:
        raise InputError(f"--guidance: {error}") from error


def _labels(model: Backbone, labels: Sequence[int] | None, *, num: int) -> list[int] | None:
    if model.num_classes is None:
        if labels:
            raise InputError(f"backbone {model.name} takes no labels; leave --label out.")
        return None
    known = list(labels) if labels else list(range(model.num_classes))
    wrong = [label for label in known if not 0 <= label < model.num_classes]
    if wrong:
        raise InputError(f"label {wrong[0]} is not one of backbone {model.name}'s 0 ... {model.num_classes - 1}.")
    return np.resize(known, num).tolist()


def _grid(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The images side by side, as square as possible, with a pixel of white between; enlarged where they are tiny."""
    enlarged = images.repeat(max(1, 32 // images.shape[1]), axis=1).repeat(max(1, 32 // images.shape[2]), axis=2)
    count, height, width, channels = enlarged.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    grid = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), 255, dtype=np.uint8)
    for i, image in enumerate(enlarged):
        top, left = i // columns * (height + 1), i % columns * (width + 1)
        grid[top : top + height, left : left + width] = image
    return grid
