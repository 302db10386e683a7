"""Commands for images of one's own: look at them, write presets, tell what runs of them cost."""

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.options import shared
from flows.output import WANTED, progress, result, say
from flows.shell import Settings, errors_in_one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.commands.init import Survey, Wishes
    from tasks.commands.preset_choices import Choices
    from tasks.estimates.augmentation import Forecast

own_data = typer.Typer()

_NONE = "none"
_UNMEASURED = "too few to measure"


@own_data.command()
@shared("json")
def init(
    name: Annotated[str, typer.Argument(help="The new preset's name: small letters, digits, dot, _ and -.")],
    images: Annotated[
        Path,
        typer.Option(help="Folder or zip archive with one folder a class, or with a table; tars (DIR/train-*.tar)."),
    ],
    table: Annotated[Path | None, typer.Option(help="CSV, TSV, JSONL or Parquet table with a row an image.")] = None,
    backbone: Annotated[str | None, typer.Option(help="A pretrained backbone.")] = None,
    train: Annotated[bool, typer.Option("--train", help="Train a backbone; what is done without --backbone.")] = False,
    label: Annotated[str | None, typer.Option(help="Column of the label.")] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="Column that divides classes into groups. Repeatable.")
    ] = None,
    identity: Annotated[str | None, typer.Option(help='Column of what is shown, e.g. patient; "" for none.')] = None,
    split: Annotated[str | None, typer.Option(help='Column of the makers\' parts; "" for none.')] = None,
    size: Annotated[int | None, typer.Option(min=8, help="Side in pixels.")] = None,
    test_share: Annotated[float | None, typer.Option(help="Share of each class that tests, e.g. 0.2.")] = None,
    mirrored: Annotated[bool | None, typer.Option(help="Whether images may be mirrored.")] = None,
    quota: Annotated[int | None, typer.Option(min=1, help="Images a group, real and synthetic.")] = None,
    store: Annotated[str | None, typer.Option(help="Folder or fsspec URL that receives the dataset.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing; take what was seen.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the file instead of writing it.")] = False,
) -> None:
    """Look at pictures of your own, and write presets for them: presets/NAME.yaml.

    Example: `minority init faces --images portraits/ --table portraits.csv --label sex`
    """
    with errors_in_one_line():
        from tasks.commands.init import Wishes, checked_text, choose, described, look, parts, preset_path, write_preset
        from tasks.commands.preset_file import commands_of
        from tasks.errors import InputError
        from tasks.inputs.workspace import choose_device

        if train and backbone is not None:
            raise InputError("--train and --backbone exclude each other; name a backbone, or let one be trained.")
        if not dry_run and preset_path(name).exists():
            raise InputError(f"{preset_path(name)} exists, and is not overwritten; edit it, or choose another name.")
        seen = look(images, table)
        aside = dry_run or WANTED.json
        for line in described(seen):
            say(line, err=aside)
        on_gpu = choose_device("auto") == "cuda"
        wishes = Wishes(
            label=label,
            groups=group or (),
            identity=identity,
            split=split,
            image_size=size,
            test_fraction=test_share,
            mirrored=mirrored,
            quota=quota,
            store=store,
            backbone=backbone,
        )
        ask = sys.stdin.isatty() and sys.stdout.isatty() and not (yes or WANTED.json)
        choices = _asked(name, seen, wishes, on_gpu=on_gpu) if ask else choose(name, seen, wishes, on_gpu=on_gpu)
        text = checked_text(choices, on_gpu=on_gpu)
        for line in [*_chosen(choices), parts(text)]:
            say(line, err=aside)
        document: dict[str, Any] = {
            "preset": name,
            "images": seen.num_images,
            "left_out": {"unreadable": seen.unreadable, "others": seen.others},
            "classes": choices.class_counts,
            "columns": {"label": choices.label_column, "groups": list(choices.groups)}
            | {"identity": choices.identity_column, "split": choices.split_column},
            "image_size": choices.image_size,
            "quota": choices.quota,
            "commands": [f"minority {command} {name}" for command in commands_of(choices)],
        }
        if dry_run:
            result(lambda: document | {"file": None, "text": text}, show=lambda: say(text))
            return
        written = write_preset(name, text)

        def show() -> None:
            say(f"written: {written}")
            minutes = _training_minutes(name) if backbone is None else ""
            for command in commands_of(choices):
                say(f"  minority {command} {name}{minutes if command == 'train-backbone' else ''}")

        result(lambda: document | {"file": str(written)}, show=show)


def _asked(name: str, seen: "Survey", wishes: "Wishes", *, on_gpu: bool) -> "Choices":
    """Ask what was not said; the default of each question is what would be taken unasked."""
    from dataclasses import replace

    from tasks.commands.init import choose

    if seen.table is not None:
        if wishes.label is None:
            wishes = replace(wishes, label=typer.prompt("Column of the label", default=seen.label_column))
        if not wishes.groups:
            likely = [column for column in seen.group_columns if column != wishes.label]
            hint = f" (e.g. {', '.join(likely)})" if likely else ""
            answer = typer.prompt(f"Columns that make groups{hint}, separated by commas", default=_NONE)
            wishes = replace(wishes, groups=[part.strip() for part in answer.split(",") if part.strip() != _NONE])
        if wishes.identity is None:
            question = "Column of what is shown (patient, person)"
            wishes = replace(wishes, identity=_column(question, seen.identity_column))
        if wishes.split is None:
            wishes = replace(wishes, split=_column("Column of the makers' parts", seen.split_column))
    if wishes.mirrored is None:
        wishes = replace(wishes, mirrored=typer.confirm("Is a mirrored image as good an example?", default=False))
    usual = choose(name, seen, wishes, on_gpu=on_gpu)
    if wishes.image_size is None:
        wishes = replace(wishes, image_size=typer.prompt("Side in pixels", default=usual.image_size, type=int))
    if wishes.test_fraction is None and usual.split_column is None and not seen.has_test_folder:
        wishes = replace(wishes, test_fraction=typer.prompt("Share that tests", default=0.2, type=float))
    if wishes.quota is None:
        wishes = replace(
            wishes, quota=typer.prompt("Images a group, real and synthetic", default=usual.quota, type=int)
        )
    if wishes.store is None:
        wishes = replace(wishes, store=typer.prompt("Folder or URL of the dataset", default=usual.store))
    return choose(name, seen, wishes, on_gpu=on_gpu)


def _column(question: str, likely: str | None) -> str:
    """The column that is answered; "" for none."""
    answer: str = typer.prompt(question, default=likely or _NONE)
    return "" if answer == _NONE else answer


def _chosen(choices: "Choices") -> list[str]:
    counts = choices.class_counts
    shown = ", ".join(f"{name} ({count})" for name, count in list(counts.items())[:8])
    rest = f" and {len(counts) - 8} more" if len(counts) > 8 else ""
    lines = [f"classes: {shown}{rest}"]
    if choices.label_column is not None:
        groups = ", ".join(choices.groups) or "none, the classes are the groups"
        lines.append(
            f"label: {choices.label_column}; groups: {groups}; identity: {choices.identity_column or 'none'}; "
            f"parts: {choices.split_column or 'none given'}"
        )
    lines.append(f"{choices.image_size} pixels; {choices.quota} images a group")
    return lines


def _training_minutes(name: str) -> str:
    from tasks.config.presets import load_preset
    from tasks.config.runs import TrainBackboneConfig
    from tasks.estimates.training import training_seconds

    seconds = training_seconds(load_preset(TrainBackboneConfig, name))
    return f"    # about {_time(seconds)} on this machine{_shared()}, and evaluating the result"


def _shared() -> str:
    """What other work on this machine means for estimates, which are those of an idle one."""
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0]
    return f" when it is idle (now {load:.0f} processes share its {cores} cores)" if load > 1.5 * cores else ""


def _time(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 100 else f"{seconds / 60:.0f} minutes"


@own_data.command()
@shared("config", "json")
def plan(
    name: Annotated[str, typer.Argument(help="An augment preset, e.g. digits.")],
    assignments: Settings = None,
    store: Annotated[str | None, typer.Option(help="Folder or fsspec URL that receives the dataset.")] = None,
) -> None:
    """Tell what a run of augment will cost, before anything is spent: candidates, evaluations, minutes, disk.

    Example: `minority plan digits --set plan.quota=200`
    """
    with errors_in_one_line(), progress():
        from tasks.config.presets import load_preset, parse_overrides
        from tasks.config.runs import AugmentConfig
        from tasks.estimates.augmentation import forecast

        overrides = parse_overrides(assignments or []) | ({"store": store} if store else {})
        expected = forecast(load_preset(AugmentConfig, name, overrides=overrides))
        result(lambda: {"preset": f"augment/{name}"} | asdict(expected), show=lambda: _show_plan(expected))


def _show_plan(found: "Forecast") -> None:
    for group in found.groups:
        say(f"{group.group}: {group.real} real, {group.wanted} wanted, {group.candidates} in the first round")
    rounds = " + ".join(map(str, found.rounds)) or "none"
    say(f"candidates: {rounds} at the expected yield, {found.budget} at most; {found.baseline} plain samples")
    say(f"evaluations: {found.evaluations} at the expected yield, {found.most_evaluations} at most")
    slots = f"in {found.slots} worker slots" if found.slots > 1 else "in one worker slot"
    say(f"time of drawing and scoring: about {_time(found.seconds)} {slots}{_shared()}")
    if found.classifier_seconds:
        say(f"time of training classifiers: about {_time(found.classifier_seconds)}")
    say(f"disk: {found.disk / 1e6:.1f} MB")
    for training in found.trainings:
        say(f"trains {training}")
    for warning in found.warnings:
        say(f"NOTE {warning}")


@own_data.command()
@shared("config", "json")
def headroom(
    name: Annotated[str, typer.Argument(help="An augment preset, e.g. digits.")],
    assignments: Settings = None,
    seeds: Annotated[int, typer.Option(min=2, help="Trainings at each of three sizes.")] = 5,
    recipe: Annotated[
        str, typer.Option(help="How classifiers are trained; without synthetic images.")
    ] = "oversampling",
    store: Annotated[str | None, typer.Option(help="Folder or fsspec URL where reports look for the result.")] = None,
) -> None:
    """Tell what more images of each group could bring a classifier, from the real ones alone, before any are drawn.

    A classifier is trained on a quarter, a half and all of the images, several times. The upper end of the interval for
    twice as many real images is an upper end for synthetic ones. Test images are not looked at. Reports of runs on the
    same images repeat it beside what was reached.

    Example: `minority headroom digits --seeds 5`
    """
    with errors_in_one_line(), progress():
        from tasks.config.presets import load_preset, parse_overrides
        from tasks.config.runs import AugmentConfig, with_resolved_store
        from tasks.estimates.headroom import measure_headroom
        from tasks.execution.terminal import stage_shown

        overrides = parse_overrides(assignments or []) | ({"store": store} if store else {})
        config = with_resolved_store(load_preset(AugmentConfig, name, overrides=overrides))
        with stage_shown("headroom", unit="trainings") as on_done:
            found = measure_headroom(config, seeds=seeds, arm=recipe, on_done=on_done)
        document = {"preset": f"augment/{name}", "recipe": recipe, "seeds": seeds}
        result(
            lambda: document | {"groups": [_headroom_figures(group) for group in found]},
            show=lambda: _show_headroom(found),
        )


def _headroom_figures(group: Any) -> dict[str, Any]:
    """A group's figures; a gain that could not be measured is none, and its reason says why."""
    return asdict(group) | ({"gain": None, "interval": None} if group.verdict == _UNMEASURED else {})


def _show_headroom(groups: "Sequence[Any]") -> None:
    for found in groups:
        curve = " -> ".join("-" if value != value else f"{value:.0%}" for value in found.accuracy)
        say(f"{found.group}: {found.images} images, accuracy {curve}: {found.verdict} ({found.reason})")
        if found.verdict != _UNMEASURED:
            low, high = found.interval
            points = f"{100 * found.gain:+.1f} points ({100 * low:+.1f} ... {100 * high:+.1f})"
            say(f"    twice as many: {points}")
