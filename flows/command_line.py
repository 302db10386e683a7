"""The command line: `minority COMMAND`. Exits 0 when done, 1 when a run failed, 2 on bad input, with one clear line."""

from flows.interruption import end_on_signals  # first: what follows takes a second

# isort: split

import importlib.metadata
import os
from pathlib import Path
from typing import Annotated

import typer

from flows.deployed import deployed
from flows.options import Debug, Json, Quiet, Verbose, shared
from flows.output import WANTED, note, progress, result, say
from flows.own_data import own_data
from flows.shell import (  # sets Prefect up before anything imports it
    BACKBONE,
    Flags,
    Settings,
    errors_in_one_line,
    fail_if_strict,
    require_plain_arguments,
)
from flows.streams import ready_streams
from flows.tools import tools

app = typer.Typer(
    help="Generate, select and publish the rare samples that a training set lacks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.add_typer(own_data)
app.add_typer(deployed)
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
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Generate, select and publish the rare samples that a training set lacks."""
    vars(WANTED).update(json=json, quiet=quiet, verbose=verbose, strict=False)
    if debug:
        os.environ["MINORITY_DEBUG"] = "1"


def main() -> None:
    """Run the command line."""
    ready_streams()
    require_plain_arguments()
    end_on_signals()
    app()


@app.command()
@shared("config", "strict", "json")
def augment(
    preset: Annotated[str, typer.Argument(help="A preset, e.g. digits.")],
    assignments: Settings = None,
    store: Annotated[str | None, typer.Option(help="Folder or fsspec URL that receives the dataset.")] = None,
) -> None:
    """Run the whole job in this process: generate, select, publish, compare classifiers where asked, report.

    Example: `minority augment digits --set seed=1 --store /data/balanced`
    """
    with errors_in_one_line(), progress():
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
        note(account_of_images(config.dataset))
        from flows.augment import augment as run
        from flows.result_table import show_summary
        from tasks.report.publish import RunSummary

        summary = run(config)
        assert isinstance(summary, RunSummary), "only a deployed run waits for an approval"
        complete = show_summary(summary)
    fail_if_strict(complete)


@app.command()
@shared("config", "strict", "json")
def downstream(
    preset: Annotated[str, typer.Argument(help="A downstream preset, e.g. digits.")],
    assignments: Settings = None,
    store: Annotated[str | None, typer.Option(help="Folder or fsspec URL that holds the dataset.")] = None,
) -> None:
    """Train classifiers with and without the synthetic images of a published run, compare them, and report.

    Example: `minority downstream digits --store /data/balanced --set downstream.seeds=10`
    """
    with errors_in_one_line(), progress():
        from tasks.config.presets import load_preset, parse_overrides
        from tasks.config.runs import DownstreamConfig

        overrides = parse_overrides(assignments or [])
        config = load_preset(DownstreamConfig, preset, overrides=overrides | ({"store": store} if store else {}))
        from flows.server import require_server

        require_server()
        from tasks.downstream.trainings import resolved

        config = resolved(config)
        from flows.downstream import downstream as run
        from flows.result_table import show_summary

        complete = show_summary(run(config))
    fail_if_strict(complete)


@app.command()
@shared("strict", "json")
def review(
    dataset: Annotated[str, typer.Argument(help="A dataset's name in the store, e.g. digits.")],
    decisions: Annotated[Path, typer.Option(help="What the gallery exported.")],
    store: Annotated[str, typer.Option(help="Folder or fsspec URL that holds the dataset.")] = "runs",
    by: Annotated[str | None, typer.Option(help="Who decided; by default as the file says.")] = None,
) -> None:
    """Publish a new version of a run without what people refused, filled again from its other candidates.

    Example: `minority review digits --decisions decisions-3b34d8e1a725.json`
    """
    with errors_in_one_line(), progress():
        from flows.result_table import show_review
        from tasks.review.review_run import review_run

        complete = show_review(review_run(dataset, decisions, store=store, decided_by=by))
    fail_if_strict(complete)


@app.command()
@shared("config", "json")
def discover(
    preset: Annotated[str, typer.Argument(help="A preset of prefect.yaml or of your own, e.g. digits.")],
    assignments: Settings = None,
    store: Annotated[str | None, typer.Option(help="Folder or fsspec URL that receives the result.")] = None,
) -> None:
    """Look for hidden groups: images that a biased model gets wrong, in a table and on contact sheets.

    Example: `minority discover digits --set discovery.models=5`
    """
    with errors_in_one_line(), progress():
        from tasks.config.presets import load_discovery, parse_overrides
        from tasks.config.runs import with_resolved_store

        overrides = parse_overrides(assignments or [])
        config = with_resolved_store(load_discovery(preset, overrides=overrides | ({"store": store} if store else {})))
        from flows.server import require_server

        require_server()
        from tasks.checks import account_of_images
        from tasks.discovery.search import open_search

        open_search(config)
        note(account_of_images(config.dataset))
        from flows.discover import discover as run
        from flows.result_table import show_discovery

        show_discovery(run(config))


@app.command(name="train-backbone")
@shared("config", "json")
def train_backbone(
    preset: Annotated[str, typer.Argument(help="A backbone preset, e.g. digits.")],
    assignments: Settings = None,
    no_evaluation: Annotated[
        bool,
        typer.Option("--no-evaluation", help="Do not evaluate the result; evaluate-backbone can do so later."),
    ] = False,
) -> None:
    """Train a diffusion model on a dataset's training split, and write it with its model card.

    Example: `minority train-backbone digits --set out=/tmp/digits`
    """
    with errors_in_one_line(), progress():
        from tasks.config.presets import load_preset, parse_overrides
        from tasks.config.runs import TrainBackboneConfig

        overrides = parse_overrides(assignments or []) | ({"quality": None} if no_evaluation else {})
        config = load_preset(TrainBackboneConfig, preset, overrides=overrides)
        from flows.server import require_server

        require_server()
        from tasks.checks import account_of_images

        note(account_of_images(config.dataset))
        from flows.train_backbone import train_backbone as run
        from tasks.backbone.train import quality_figures

        folder = run(config)
        document = {"backbone": folder, "evaluated": config.quality is not None}
        result(lambda: document | {"quality": quality_figures(config)}, show=lambda: say(f"backbone: {folder}"))


@app.command(name="evaluate-backbone")
@shared("config", "json")
def evaluate_backbone(
    preset: Annotated[str, typer.Argument(help="A backbone preset, e.g. digits.")],
    assignments: Settings = None,
) -> None:
    """Evaluate a backbone that is trained already, and write its model card anew; nothing else of it changes.

    Give the settings that it was trained with: the card repeats them.

    Example: `minority evaluate-backbone digits --set out=/tmp/digits --set quality.bits_images=50`
    """
    with errors_in_one_line(), progress():
        from tasks.config.presets import load_preset, parse_overrides
        from tasks.config.runs import TrainBackboneConfig

        config = load_preset(TrainBackboneConfig, preset, overrides=parse_overrides(assignments or []))
        from tasks.backbone.train import evaluate, quality_figures

        card = evaluate(config)
        document = {"backbone": str(card.parent), "model_card": str(card)}
        result(lambda: document | {"quality": quality_figures(config)}, show=lambda: say(f"model card: {card}"))


@app.command()
@shared("config", "json")
def adapt(
    preset: Annotated[str, typer.Argument(help="An adaptation preset, e.g. t2i-demo.")],
    assignments: Settings = None,
) -> None:
    """Adapt a text-to-image model to a dataset's training split: LoRA, and new words of its prompts.

    Example: `minority adapt t2i-demo --set adaptation.steps=200 --set out=/tmp/adapter`
    """
    with errors_in_one_line(), progress():
        from tasks.config.presets import load_preset, parse_overrides
        from tasks.config.runs import AdaptConfig

        config = load_preset(AdaptConfig, preset, overrides=parse_overrides(assignments or []))
        from flows.server import require_server

        require_server()
        from tasks.checks import account_of_images

        note(account_of_images(config.dataset))
        from flows.adapt import adapt as run

        folder = run(config)
        result(lambda: {"adapter": folder}, show=lambda: say(f"adapter: {folder}"))


@app.command()
@shared("config", "strict", "json")
def calibrate(
    preset: Annotated[str, typer.Argument(help="A calibration preset, e.g. digits.")],
    assignments: Settings = None,
    store: Annotated[str | None, typer.Option(help="Folder or fsspec URL that receives the result.")] = None,
) -> None:
    """Search the sampler settings that keep the most samples per unit of compute, and print a preset to paste.

    Example: `minority calibrate digits --set calibration.budget=200000`
    """
    with errors_in_one_line(), progress():
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
        note(account_of_images(config.dataset))
        from flows.calibrate import calibrate as run
        from flows.result_table import show_calibration

        complete = show_calibration(run(config))
    fail_if_strict(complete)


@app.command()
@shared("config", "json")
def presets() -> None:
    """List what can be run.

    Example: `minority presets`
    """
    with errors_in_one_line():
        from tasks.config.preset_files import list_presets

        listed = list_presets()

        def show() -> None:
            for flow, name, description in listed:
                say(f"{flow}/{name}\n    {description}")

        result(
            lambda: {"presets": [dict(zip(("flow", "name", "description"), entry, strict=True)) for entry in listed]},
            show=show,
        )


@app.command()
@shared("config", "json")
def describe(
    preset: Annotated[str, typer.Argument(help="An augment preset, e.g. digits, or a set's YAML file.")],
    out: Annotated[Path | None, typer.Option(help="Folder that receives the card and a picture of examples.")] = None,
    assignments: Settings = None,
) -> None:
    """Tell what the real images of a preset are: counts a group and split, missing values, duplicates, examples.

    Example: `minority describe digits --out digits-card`

    A set in a file of its own: `minority describe examples/sets/ham10000.yaml --set dataset.folder=/data/ham10000`
    """
    with errors_in_one_line(), progress():
        from tasks.commands.description import describe_dataset
        from tasks.config.dataset_file import load_dataset
        from tasks.config.presets import parse_overrides

        card = describe_dataset(load_dataset(preset, overrides=parse_overrides(assignments or [])), out)
        result(card.to_dict, show=lambda: say(card.to_markdown()))


@app.command()
@shared("config", "json")
def doctor(
    name: Annotated[
        str | None, typer.Argument(help="Examine the presets of this name alone, those of every flow.")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help=f"Examine this backbone alone. {BACKBONE}")] = None,
    flag: Flags = None,
) -> None:
    """Tell what is missing on this machine, and how to mend it. Exits 1 where something cannot run at all.

    Example: `minority doctor`

    All presets of one name: `minority doctor digits`. One backbone: `minority doctor --backbone backbones/digits`
    """
    with errors_in_one_line():
        from tasks.commands.doctor import examine, examine_backbone
        from tasks.config.presets import parse_overrides
        from tasks.errors import InputError

        if name is not None and backbone is not None:
            raise InputError("a preset's NAME and --backbone exclude each other; examine one after the other.")
        if name is not None:
            from tasks.estimates.readiness import examine_presets

            findings = examine_presets(name)
        else:
            findings = examine() if backbone is None else examine_backbone(backbone, parse_overrides(flag or []))
        sound = not any(finding.startswith("MISSING") for finding in findings)

        def show() -> None:
            for finding in findings:
                say(finding)

        result(lambda: {"sound": sound, "findings": findings}, show=show)
    if not sound:
        raise typer.Exit(1)
