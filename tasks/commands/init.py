"""`minority init`: from a folder of pictures to a file of presets."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.survey import Survey, survey
from tasks.commands.preset_choices import Choices, class_counts, default_edges, default_quota, default_side
from tasks.commands.preset_file import preset_text
from tasks.config.preset_files import own_presets_folder, preset_files
from tasks.config.presets import FLOWS, presets_in, validate
from tasks.config.runs import AugmentConfig
from tasks.errors import InputError
from tasks.inputs.real_data import load_real_data
from tasks.inputs.workspace import open_named_backbone


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the user has said; None and empty where a default is due.

    Attributes:
        label: Column of the label.
        groups: Columns that divide the classes into groups.
        identity: Column that tells what is shown; "" for none.
        split: Column of the makers' parts; "" for none.
        image_size: Side in pixels.
        test_fraction: Share of the images that tests.
        mirrored: Whether a mirrored image is as good an example.
        quota: Images a group.
        store: Folder or URL.
        backbone: A pretrained backbone.
    """

    label: str | None = None
    groups: Sequence[str] = ()
    identity: str | None = None
    split: str | None = None
    image_size: int | None = None
    test_fraction: float | None = None
    mirrored: bool | None = None
    quota: int | None = None
    store: str | None = None
    backbone: str | None = None


def look(images: Path, table: Path | None) -> Survey:
    """Look at a folder, zip archive or tars of images, and the table beside it; see `datasets.survey.survey`."""
    return survey(images, table=table)


def described(seen: Survey) -> list[str]:
    """What was seen, in lines."""
    lines = [f"{seen.num_images} images in {seen.images}"]
    if seen.others:
        kinds = ", ".join(f"{count} {kind}" for kind, count in seen.others.most_common(5))
        lines.append(f"{seen.others.total()} other files, which are left out: {kinds}")
    looked = "all" if seen.opened == seen.num_images else f"{seen.opened}"
    lines.append(f"{looked} opened: {_sizes(seen)} pixels, {'grey' if seen.grey else 'colour'}")
    if seen.unreadable:
        first = ", ".join(seen.unreadable[:3])
        lines.append(f"{len(seen.unreadable)} cannot be opened, and are left out: {first}")
    if seen.duplicates:
        lines.append(f"{seen.duplicates} are equal to another one, byte for byte")
    if seen.table is not None:
        rows = [
            f"{c.name} ({len(c.counts)} values{f', {c.missing} missing' if c.missing else ''})" for c in seen.columns
        ]
        lines.append(f"columns of {seen.table.name}: {', '.join(rows)}")
    return lines


def _sizes(seen: Survey) -> str:
    """The sizes one by one where they are few, else between which ones they lie."""
    if len(seen.sizes) <= 3:
        return ", ".join(f"{width} x {height} ({count})" for (width, height), count in seen.sizes.most_common())
    widths, heights = zip(*seen.sizes, strict=True)
    return f"{len(seen.sizes)} sizes, {min(widths)} to {max(widths)} wide and {min(heights)} to {max(heights)} high, in"


def choose(name: str, seen: Survey, wishes: Wishes, *, on_gpu: bool) -> Choices:
    """Fill in what was not said.

    Args:
        name: The preset's name.
        seen: What was seen.
        wishes: What was said.
        on_gpu: Whether a GPU will do the work.

    Raises:
        InputError: Something necessary cannot be seen, or a wish cannot be granted.
    """
    label = wishes.label or seen.label_column
    if seen.table is not None and seen.image_column is None:
        raise InputError(f"no column of {seen.table} names images of {seen.images}; correct one of the two.")
    if seen.table is not None and label is None:
        columns = ", ".join(column.name for column in seen.columns)
        taken = {seen.split_column, None if seen.image_column is None else seen.image_column[0]}
        likely = [
            c for c in seen.columns if c.name not in taken and 2 <= len(c.counts) <= min(20, c.counts.total() // 2)
        ]
        first = f", e.g. --label {likely[0].name}" if likely else ""
        raise InputError(
            f"no column of {seen.table} looks like the label; name it{first or ' with --label'}. There are {columns}."
        )
    if seen.table is None:
        _refuse_columns(wishes)
        label = None
    counts = class_counts(seen, label)
    if len(counts) < 2:
        raise InputError(f"there is one class only ({', '.join(counts)}), so there is nothing to balance.")
    split = seen.split_column if wishes.split is None else wishes.split or None
    if wishes.test_fraction is not None and (split is not None or seen.has_test_folder):
        whose = f"column {split} of {seen.table} tells" if split is not None else f"folders of {seen.images} tell"
        instead = ', or say --split "" to divide the images anew' if split is not None else ""
        raise InputError(f"the {whose} which images test, so there is no --test-share; leave it out{instead}.")
    test_fraction = 0.2 if wishes.test_fraction is None else wishes.test_fraction
    quota = wishes.quota or default_quota(counts, train_share=0.9 * (1 - test_fraction))
    for column in (*wishes.groups, *filter(None, (wishes.identity, split))):
        _require_column(seen, column)
    return Choices(
        name=name,
        survey=seen,
        label_column=label,
        groups=_groups(seen, wishes.groups),
        identity_column=seen.identity_column if wishes.identity is None else wishes.identity or None,
        split_column=split,
        image_size=wishes.image_size or _side(seen, wishes.backbone, on_gpu=on_gpu),
        test_fraction=test_fraction,
        mirrored=bool(wishes.mirrored),
        quota=quota,
        store=wishes.store or "runs",
        backbone=wishes.backbone,
    )


def checked_text(choices: Choices, *, on_gpu: bool) -> str:
    """The file's content, after every preset in it was checked as a run would check it.

    Raises:
        InputError: One of them is not possible.
    """
    text = preset_text(choices, on_gpu=on_gpu)
    for flow, entry in presets_in(text, source=f"presets/{choices.name}.yaml"):
        validate(FLOWS[flow], entry["parameters"]["config"], overrides={})
    return text


def parts(text: str) -> str:
    """How many images train, validate and test, once the presets' images were read as a run reads them.

    Args:
        text: The file's content.

    Raises:
        InputError: They cannot be read.
    """
    config = next(
        entry["parameters"]["config"] for flow, entry in presets_in(text, source="the preset") if flow == "augment"
    )
    real = load_real_data(validate(AugmentConfig, config, overrides={}).dataset)
    return f"{len(real.train)} train, {len(real.validation)} validate, {len(real.test)} test"


def write_preset(name: str, text: str) -> Path:
    """Write the file, which must not exist.

    Raises:
        InputError: It exists.
    """
    for other in (path for path in preset_files() if path != preset_path(name)):
        if any(entry["name"] == name for _, entry in presets_in(other.read_text(encoding="utf-8"), source=str(other))):
            raise InputError(f"{other} has presets called {name} already; choose another name.")
    path = preset_path(name)
    path.parent.mkdir(exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise InputError(
            f"{path} exists, and is not overwritten; edit it, remove it, or choose another name."
        ) from error
    return path


def preset_path(name: str) -> Path:
    """Where the presets of a name are kept."""
    return own_presets_folder() / f"{name}.yaml"


def _side(seen: Survey, backbone: str | None, *, on_gpu: bool) -> int:
    """The side that the backbone draws, or that fits images and device where one is trained."""
    if backbone is None:
        return default_side(seen, on_gpu=on_gpu)
    _, height, width = open_named_backbone(backbone, {}).image_shape
    if height != width:
        raise InputError(f"{backbone} draws {width} x {height} pixels; sets are cut to squares, so it does not fit.")
    return height


def _refuse_columns(wishes: Wishes) -> None:
    asked = {"--label": wishes.label, "--group": wishes.groups, "--identity": wishes.identity, "--split": wishes.split}
    given = [option for option, value in asked.items() if value]
    if given:
        raise InputError(f"{', '.join(given)} names a column, and there is no table; give one with --table.")


def _require_column(seen: Survey, column: str) -> None:
    try:
        seen.column(column)
    except ValueError as error:
        raise InputError(str(error)) from error


def _groups(seen: Survey, columns: Sequence[str]) -> Mapping[str, tuple[float, ...] | None]:
    return {column: default_edges(seen, column) for column in columns}


__all__ = [
    "Survey",
    "Wishes",
    "checked_text",
    "choose",
    "described",
    "look",
    "parts",
    "preset_path",
    "write_preset",
]
