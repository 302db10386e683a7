"""The command line: `minority COMMAND`. Exits 0 when done, 1 when a run failed, 2 on bad input, with one clear line."""

import importlib.metadata
import os
from pathlib import Path
from typing import Annotated

import typer

from flows.own_data import own_data
from flows.shell import (  # sets Prefect up before anything imports it
    BACKBONE,
    Flags,
    Settings,
    end_on_term,
    errors_in_one_line,
    ready_streams,
    require_plain_arguments,
    say,
)
from flows.tools import tools

app = typer.Typer(
    help="Generate, select and publish the rare samples that a training set lacks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.add_typer(own_data)
app.add_typer(tools)


def _show_version(asked: bool) -> None:
    if asked:
        say(f"minority-augment {importlib.metadata.version('minority-augment')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and end.", is_eager=True, callback=_show_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error beside its line.")] = False,
) -> None:
    """Generate, select and publish the rare samples that a training set lacks."""
    if debug:
        os.environ["MINORITY_DEBUG"] = "1"


def main() -> None:
    """Run the command line."""
    ready_streams()
    require_plain_arguments()
    end_on_term()
    app()


@app.command()
def augment(
    preset: Annotated[str, typer.Argument(help="A preset of prefect.yaml, e.g. digits.")],
    assignments: Settings = None,
    store: Annotated[str | None, typer.Option(help="Folder or fsspec URL that receives the dataset.")] = None,
) -> None:
    """Run the whole job in this process: generate, select, publish, compare classifiers where asked, report.

    Example: `minority augment digits --set seed=1 --store /data/balanced`
    """
    with errors_in_one_line():
        from tasks.config.presets import load_preset, parse_overrides
        from tasks.config.runs import AugmentConfig, with_resolved_store

        overrides = parse_overrides(assignments or [])
        config = with_resolved_store(
            load_preset(AugmentConfig, preset, overrides=overrides | ({"store": store} if store else {}))
        )
        from flows.server import require_server

        require_server()
        from tasks.checks import account_of_images, check_inputs

        check_inputs(config)
        say(account_of_images(config.dataset))
        from flows.augment import augment as run
        from flows.result_table import print_summary

        print_summary(run(config))


@app.command()
def downstream(
    preset: Annotated[str, typer.Argument(help="A downstream preset of prefect.yaml, e.g. digits.")],
    assignments: Settings = None,
    store: Annotated[str | None, typer.Option(help="Folder or fsspec URL that holds the dataset.")] = None,
) -> None:
    """Train classifiers with and without the synthetic images of a published run, compare them, and report.

    Example: `minority downstream digits --store /data/balanced --set downstream.seeds=10`
    """
    with errors_in_one_line():
        from tasks.config.presets import load_preset, parse_overrides
        from tasks.config.runs import DownstreamConfig

        overrides = parse_overrides(assignments or [])
        config = load_preset(DownstreamConfig, preset, overrides=overrides | ({"store": store} if store else {}))
        from flows.server import require_server

        require_server()
        from tasks.downstream.trainings import resolved

        config = resolved(config)
        from flows.downstream import downstream as run
        from flows.result_table import print_summary

        print_summary(run(config))


@app.command(name="train-backbone")
def train_backbone(
    preset: Annotated[str, typer.Argument(help="A backbone preset of prefect.yaml, e.g. digits.")],
    assignments: Settings = None,
) -> None:
    """Train a diffusion model on a dataset's training split, and write it with its model card.

    Example: `minority train-backbone digits --set out=/tmp/digits`
    """
    with errors_in_one_line():
        from tasks.config.presets import load_preset, parse_overrides
        from tasks.config.runs import TrainBackboneConfig

        config = load_preset(TrainBackboneConfig, preset, overrides=parse_overrides(assignments or []))
        from flows.server import require_server

        require_server()
        from tasks.checks import account_of_images

        say(account_of_images(config.dataset))
        from flows.train_backbone import train_backbone as run

        say(f"backbone: {run(config)}")


@app.command(name="evaluate-backbone")
def evaluate_backbone(
    preset: Annotated[str, typer.Argument(help="A backbone preset of prefect.yaml, e.g. digits.")],
    assignments: Settings = None,
) -> None:
    """Evaluate a backbone that is trained already, and write its model card anew; nothing else of it changes.

    Give the settings that it was trained with: the card repeats them.

    Example: `minority evaluate-backbone digits --set out=/tmp/digits --set quality.bits_images=50`
    """
    with errors_in_one_line():
        from tasks.config.presets import load_preset, parse_overrides
        from tasks.config.runs import TrainBackboneConfig

        config = load_preset(TrainBackboneConfig, preset, overrides=parse_overrides(assignments or []))
        from tasks.backbone.train import evaluate

        say(f"model card: {evaluate(config)}")


@app.command()
def adapt(
    preset: Annotated[str, typer.Argument(help="An adaptation preset of prefect.yaml, e.g. t2i-demo.")],
    assignments: Settings = None,
) -> None:
    """Adapt a text-to-image model to a dataset's training split: LoRA, and new words of its prompts.

    Example: `minority adapt t2i-demo --set adaptation.steps=200 --set out=/tmp/adapter`
    """
    with errors_in_one_line():
        from tasks.config.presets import load_preset, parse_overrides
        from tasks.config.runs import AdaptConfig

        config = load_preset(AdaptConfig, preset, overrides=parse_overrides(assignments or []))
        from flows.server import require_server

        require_server()
        from tasks.checks import account_of_images

        say(account_of_images(config.dataset))
        from flows.adapt import adapt as run

        say(f"adapter: {run(config)}")


@app.command()
def calibrate(
    preset: Annotated[str, typer.Argument(help="A calibration preset of prefect.yaml, e.g. digits.")],
    assignments: Settings = None,
    store: Annotated[str | None, typer.Option(help="Folder or fsspec URL that receives the result.")] = None,
) -> None:
    """Search the sampler settings that keep the most samples per unit of compute, and print a preset to paste.

    Example: `minority calibrate digits --set calibration.budget=200000`
    """
    with errors_in_one_line():
        from tasks.config.presets import load_preset, parse_overrides
        from tasks.config.runs import CalibrateConfig, with_resolved_store

        overrides = parse_overrides(assignments or [])
        config = with_resolved_store(
            load_preset(CalibrateConfig, preset, overrides=overrides | ({"store": store} if store else {}))
        )
        from flows.server import require_server

        require_server()
        from tasks.checks import account_of_images, check_models

        check_models(config.augment())
        say(account_of_images(config.dataset))
        from flows.calibrate import calibrate as run
        from flows.result_table import print_calibration

        print_calibration(run(config))


@app.command()
def presets() -> None:
    """List what can be run.

    Example: `minority presets`
    """
    with errors_in_one_line():
        from tasks.config.preset_files import list_presets

        for flow, name, description in list_presets():
            say(f"{flow}/{name}\n    {description}")


@app.command()
def describe(
    preset: Annotated[str, typer.Argument(help="An augment preset, e.g. digits, or a set's YAML file.")],
    out: Annotated[Path | None, typer.Option(help="Folder that receives the card and a picture of examples.")] = None,
    assignments: Settings = None,
) -> None:
    """Tell what the real images of a preset are: counts a group and split, missing values, duplicates, examples.

    Example: `minority describe digits --out digits-card`

    A set in a file of its own: `minority describe examples/sets/ham10000.yaml --set dataset.folder=/data/ham10000`
    """
    with errors_in_one_line():
        from tasks.commands.description import describe_dataset
        from tasks.config.dataset_file import load_dataset
        from tasks.config.presets import parse_overrides

        say(describe_dataset(load_dataset(preset, overrides=parse_overrides(assignments or [])), out))


@app.command()
def doctor(
    backbone: Annotated[str | None, typer.Option(help=f"Examine this backbone alone. {BACKBONE}")] = None,
    flag: Flags = None,
) -> None:
    """Tell what is missing on this machine, and how to mend it. Exits 1 where a preset cannot run at all.

    Example: `minority doctor`

    Of one backbone: `minority doctor --backbone backbones/digits`
    """
    with errors_in_one_line():
        from tasks.commands.doctor import examine, examine_backbone
        from tasks.config.presets import parse_overrides

        findings = examine() if backbone is None else examine_backbone(backbone, parse_overrides(flag or []))
    for finding in findings:
        say(finding)
    if any(finding.startswith("MISSING") for finding in findings):
        raise typer.Exit(1)
