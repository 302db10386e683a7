"""Images without the pipeline: draw some into a folder."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from datasets.runs.shards import encode_png
from minority.backbones import Backbone
from minority.sampling.draw import Drawn, SamplerSettings, draw_images
from minority.sampling.named_samplers import SAMPLERS, compare, contact_sheet, named_sampler
from tasks.config.presets import load_preset, validate
from tasks.config.runs import AugmentConfig, with_resolved_store
from tasks.config.sections import Sampler
from tasks.errors import InputError
from tasks.inputs.guidance_parts import open_parts
from tasks.inputs.workspace import Workspace, choose_device, open_named_backbone, open_workspace


@dataclass(frozen=True, eq=False, kw_only=True)
class Source:
    """What is drawn from: a backbone alone, or a preset's backbone with the preset's real images beside it.

    Attributes:
        backbone: The backbone.
        sampler: The preset's sampler; plain sampling where there is no preset.
        workspace: The preset's real images; None where there is no preset.
    """

    backbone: Backbone
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    workspace: Workspace | None = None

    def materials(self, sampler: SamplerSettings) -> dict[str, Any]:
        """What a sampler needs beside its settings, as `draw` takes it; methods that learn do so once.

        Raises:
            InputError: It needs real images, and there is no preset.
        """
        needy = [method.key for method in sampler.guidance if method.needs_real_images]
        if self.workspace is None and needy:
            raise InputError(
                f"{needy[0]} needs real images, and a backbone alone has none; name an augment preset that has them: "
                "--preset NAME (see minority presets)."
            )
        if self.workspace is None or not needy:
            return {}
        return {
            "reference": self.workspace.candidate_filter.reference,
            "extract": self.workspace.extract,
            "parts": open_parts(self.workspace, sampler.guidance),
        }


def open_source(
    backbone: str | None, preset: str | None, *, flags: Mapping[str, Any], changes: Mapping[str, Any] | None = None
) -> Source:
    """What to draw from.

    Args:
        backbone: Its path, hub id or entry point, or the YAML file of a backbone section; None for the preset's.
        preset: An augment preset: its backbone, its sampler and its real images.
        flags: ADM flags of the backbone.
        changes: Settings of the preset to change, dotted.

    Raises:
        InputError: Both or neither are given, or something is missing or does not fit.
    """
    if (backbone is None) == (preset is None):
        raise InputError("give either --backbone or --preset: a preset brings its backbone along.")
    if backbone is not None:
        if changes:
            raise InputError(
                f"--set {next(iter(changes))}: without a preset there are settings of sampler alone; name one "
                "(--preset), or leave it out."
            )
        return Source(backbone=open_named_backbone(backbone, flags))
    assert preset is not None, "one of the two is given"
    flagged = {f"backbone.flags.{name}": value for name, value in flags.items()}
    workspace = open_workspace(
        with_resolved_store(load_preset(AugmentConfig, preset, overrides={**(changes or {}), **flagged}))
    )
    return Source(backbone=workspace.backbone, sampler=workspace.config.sampler, workspace=workspace)


def draw_to_folder(
    backbone: str | None,
    out: Path,
    *,
    num: int,
    sampler: Mapping[str, Any],
    labels: Sequence[int] | None,
    seed: int,
    flags: Mapping[str, Any],
    preset: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> float:
    """Draw samples into `out`: grid.png and `<index>.png`, or `<index>-<label>.png` where there are labels.

    Args:
        backbone: Its path, hub id or entry point, or the YAML file of a backbone section; None for the preset's.
        out: The folder, made where it is missing.
        num: How many.
        sampler: Dotted settings of SamplerSettings, over those of the preset; a name takes the place of the latter.
        labels: Labels to go through; None for all that the backbone knows.
        seed: Decides all noise.
        flags: ADM flags.
        preset: See `open_source`.
        changes: See `open_source`.

    Returns:
        Denoiser evaluations a sample.

    Raises:
        InputError: A setting, label or path that is not possible.
    """
    source = open_source(backbone, preset, flags=flags, changes=changes)
    settings = _sampler_settings(source.sampler, sampler)
    model = source.backbone
    chosen = _labels(model, labels, num=num)
    images, evaluations = draw_images(
        model,
        seed=seed,
        indices=range(num),
        labels=chosen,
        settings=settings,
        device=choose_device("auto"),
        **source.materials(settings),
    )
    _write_images(images, out, chosen)
    (out / "grid.png").write_bytes(encode_png(_grid(images)))
    return evaluations


def compare_to_folder(
    backbone: str | None,
    out: Path,
    names: Sequence[str],
    *,
    num: int,
    labels: Sequence[int] | None,
    seed: int,
    flags: Mapping[str, Any],
    preset: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Draw the same seeds and labels by several samplers into `out`: a folder and a row of grid.png for each.

    Args:
        backbone: Its path, hub id or entry point, or the YAML file of a backbone section; None for the preset's.
        out: The folder, made where it is missing.
        names: Samplers by name (minority/sampling/named_samplers.py); the grid's rows are in this order.
        num: How many samples of each.
        labels: Labels to go through; None for all that the backbone knows.
        seed: Decides all noise.
        flags: ADM flags.
        preset: See `open_source`.
        changes: See `open_source`.

    Returns:
        Denoiser evaluations a sample, by sampler.

    Raises:
        InputError: A name, label or path that is not possible.
    """
    source = open_source(backbone, preset, flags=flags, changes=changes)
    model = source.backbone
    drawn: dict[str, Drawn] = {}
    chosen = _labels(model, labels, num=num)
    try:
        given = {name: source.materials(named_sampler(name)) for name in names}
        for name in names:
            drawn |= compare(
                model,
                [name],
                seed=seed,
                indices=range(num),
                labels=chosen,
                device=choose_device("auto"),
                **given[name],
            )
    except ValueError as error:
        raise InputError(str(error)) from error
    for name, result in drawn.items():
        _write_images(result.images, out / name, chosen)
    rows = [result.images for result in drawn.values()]
    enlarge = max(1, 32 // rows[0].shape[1])
    (out / "grid.png").write_bytes(encode_png(contact_sheet(rows, enlarge=enlarge)))
    return {name: result.evaluations for name, result in drawn.items()}


@dataclass(frozen=True)
class ListedSampler:
    """A named sampler: its name, whether it needs a preset's real images, what it does, and its paper."""

    name: str
    needs_preset: bool
    line: str
    paper: str

    @property
    def text(self) -> str:
        """The same in three lines."""
        return f"{self.name}{' (needs --preset)' if self.needs_preset else ''}\n    {self.line}\n    {self.paper}"


def list_samplers() -> list[ListedSampler]:
    """Every named sampler."""
    return [
        ListedSampler(
            name,
            needs_preset=any(method.needs_real_images for method in sampler.settings.guidance),
            line=sampler.line,
            paper=sampler.paper,
        )
        for name, sampler in SAMPLERS.items()
    ]


class _Drawing(BaseModel):
    """The settings of SamplerSettings as a config of their own, in which unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")

    sampler: Sampler


def _write_images(images: NDArray[np.uint8], out: Path, labels: Sequence[int] | None) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        name = f"{index:06d}" if labels is None else f"{index:06d}-{labels[index]}"
        (out / f"{name}.png").write_bytes(encode_png(image))


def _sampler_settings(own: SamplerSettings, dotted: Mapping[str, Any]) -> SamplerSettings:
    overrides = {f"sampler.{key}": value for key, value in dotted.items()}
    below = {} if "name" in dotted else own.to_dict()
    return validate(_Drawing, {"sampler": below}, overrides=overrides).sampler


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
