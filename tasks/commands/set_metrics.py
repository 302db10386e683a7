"""Metrics of a folder of images against a folder of real ones."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from datasets.readers.folder import is_flat
from datasets.storage.canonical import canonical_json
from minority.evaluation.set_report import SetReport, report_set
from minority.features import Extractor, ExtractorSettings, NetworkExtractor, build_extractor
from tasks.commands.folder_images import open_folder, passed_over, pixels_of
from tasks.config.presets import validate
from tasks.errors import InputError
from tasks.inputs.workspace import choose_device, open_named_backbone


def compare_folders(
    real: Path, generated: Path, *, features: ExtractorSettings, neighbours: int, backbone: str | None, seed: int
) -> SetReport:
    """Measure a folder of generated images against one of real images.

    Args:
        real: Images of one size; class-named subfolders give the labels that the features "classifier" need.
        generated: Images of the same size.
        features: Where images are compared.
        neighbours: k of the neighbour metrics.
        backbone: Path of the backbone for the features "backbone".
        seed: Decides bootstrap draws and subsets.

    Raises:
        InputError: Folders, sizes, weights or counts that do not fit.
    """
    folders = {"real": real, "generated": generated}
    sets = {name: open_folder(folder) for name, folder in folders.items()}
    shapes = {name: images.image_shape for name, images in sets.items()}
    if shapes["real"] != shapes["generated"]:
        raise InputError(
            f"{real} holds images of {shapes['real']} (H, W, C), {generated} of {shapes['generated']}; bring both to "
            "one size and colour."
        )
    if features.kind == "classifier" and is_flat(sets["real"]):
        raise InputError(f"{real} has no class folders, which the features of a classifier need; sort it.")
    pixels = {name: pixels_of(images) for name, images in sets.items()}
    left_out = [line for name, folder in folders.items() for line in passed_over(sets[name], folder=folder)]
    try:
        extract = build_extractor(
            features,
            backbone=None if backbone is None else open_named_backbone(backbone, {}),
            train_images=pixels["real"],
            train_labels=sets["real"].labels,
            device=choose_device("auto"),
        )
        report = report_set(
            extract(pixels["real"]),
            extract(pixels["generated"]),
            k=neighbours,
            spatial=_spatial(extract, pixels["real"], pixels["generated"]),
            seed=seed,
        )
        return replace(report, warnings=[*report.warnings, *left_out])
    except ValueError as error:
        raise InputError(str(error)) from error


class _Comparison(BaseModel):
    """Where images are compared, as a config of its own, in which unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")

    features: ExtractorSettings


def extractor_settings(dotted: Mapping[str, Any]) -> ExtractorSettings:
    """The extractor of dotted settings, e.g. {"kind": "inception", "weights": "inception.pt"}; pixels by default.

    Raises:
        InputError: A setting that is not possible.
    """
    overrides = {f"features.{key}": value for key, value in dotted.items()}
    try:
        return validate(_Comparison, {"features": {}}, overrides=overrides).features
    except InputError as error:
        raise InputError(f"--features: {error}") from error


def metrics_document(report: SetReport) -> dict[str, Any]:
    """The report in JSON's words: each figure with its interval (null where there is none), and the warnings."""
    figures = {
        name: {part: value if value == value else None for part, value in figure._asdict().items()}
        for name, figure in report.figures.items()
    }
    return {"figures": figures, "warnings": report.warnings}


def metrics_json(report: SetReport) -> bytes:
    """The same as bytes."""
    return canonical_json(metrics_document(report))


def _spatial(
    extract: Extractor, real: NDArray[np.uint8], generated: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Features for sFID, where the extractor has them."""
    if not isinstance(extract, NetworkExtractor):
        return None
    first, second = extract.spatial(real), extract.spatial(generated)
    return None if first is None or second is None else (first, second)
