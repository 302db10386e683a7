"""Scores of a folder of images, without the pipeline."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from datasets.readers.imageset import ImageSet
from minority.backbones import Backbone
from minority.diffusion.chain import Variance
from minority.sampling.draw import ScoreSettings, score_images
from tasks.commands.folder_images import labels_of, no_label_of, open_folder, passed_over, pixels_of
from tasks.errors import InputError
from tasks.inputs.workspace import choose_device, open_named_backbone


def score_folder(
    folder: Path,
    backbone: str,
    out: Path,
    *,
    seed: int,
    flags: Mapping[str, Any],
    settings: ScoreSettings | None = None,
    resize: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Score every image of a folder into a Parquet file.

    Args:
        folder: Images of one size, unless they are resized. The labels of a class-conditional backbone are given by its
            class folders: in their order where there are as many as it knows classes, else by their names where these
            are numbers that it knows. Of a flat folder, the label is what `draw_to_folder` wrote into the file's name;
            without one, images are scored as "no label" where the backbone knows that.
        backbone: Its path, hub id or entry point, or the YAML file of a backbone section.
        out: The Parquet file: file, label (null where the backbone was told none), minority_score, negative_elbo.
        seed: Decides all noise.
        flags: ADM flags.
        settings: How; None: with the variance that suits the backbone.
        resize: Cut images to their central square, and bring it to the backbone's size.
        tell: Takes a line for each reason for which files are passed over.

    Returns:
        How many "images" were scored, and of either score its mean, smallest and largest value.

    Raises:
        InputError: Files, sizes or labels that do not fit the backbone.
    """
    model = open_named_backbone(backbone, flags)
    images = _fitting_images(folder, model, resize=resize)
    labels = labels_of(images, model, folder=folder)
    pixels = pixels_of(images)
    for line in passed_over(images, folder=folder):
        tell(line)
    scores = score_images(
        model,
        pixels,
        seed=seed,
        indices=range(len(images)),
        labels=_told(model, labels, count=len(images)),
        settings=settings or ScoreSettings(),
        device=choose_device("auto"),
    )
    table = pd.DataFrame(
        {
            "file": images.source_ids,
            "label": pd.array([pd.NA] * len(images) if labels is None else labels, dtype="Int64"),
            "minority_score": scores.minority_score,
            "negative_elbo": scores.negative_elbo,
        }
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(out, index=False)
    figures = {name: _summary(table[name].to_numpy()) for name in ("minority_score", "negative_elbo")}
    return {"images": len(table)} | figures


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


def _fitting_images(folder: Path, model: Backbone, *, resize: bool) -> ImageSet:
    """The images of a folder, of the backbone's shape."""
    channels, height, width = model.image_shape
    if resize and height != width:
        raise InputError(f"backbone {model.name} makes {width} x {height} pixels, images are resized to squares alone.")
    images = open_folder(folder, image_size=height if resize else None)
    shape = (images.image_shape[2], *images.image_shape[:2])
    if shape == model.image_shape:
        return images
    if shape[1:] != (height, width):
        raise InputError(
            f"{folder} holds images of {shape} (C, H, W), backbone {model.name} makes {model.image_shape}; have them "
            "resized (--resize), or choose another backbone."
        )
    raise InputError(
        f"{folder} holds {'grey' if shape[0] == 1 else 'colour'} images {shape} (C, H, W), backbone {model.name} makes "
        f"{'grey' if channels == 1 else 'colour'} ones {model.image_shape}; convert them, or choose another backbone."
    )


def _summary(scores: NDArray[np.float32]) -> dict[str, float] | None:
    """Mean and ends of the scores that are numbers; None where there is none."""
    known = scores[np.isfinite(scores)].astype(np.float64)
    return {"mean": known.mean(), "smallest": known.min(), "largest": known.max()} if len(known) else None


def _told(model: Backbone, labels: list[int] | None, *, count: int) -> list[int] | None:
    """What the network is given: the labels, or its "no label" for every image."""
    no_label = no_label_of(model)
    return labels if labels is not None or no_label is None else [no_label] * count
