"""The command line: `minority COMMAND`. Exits 0 when done, 1 when a run failed, 2 on bad input, with one clear line."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

# Set before anything imports Prefect. A user's own settings win.
_PROJECT = Path(__file__).resolve().parent.parent
for _name, _value in {
    "PREFECT_HOME": str(_PROJECT / ".prefect"),
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    # What failed is told here, in one line; Prefect's own lines about it go to its server alone.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "DO_NOT_TRACK": "1",
}.items():
    os.environ.setdefault(_name, _value)

app = typer.Typer(
    help="Generate, select and publish the rare samples that a training set lacks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

_BACKBONE = (
    "A diffusers folder, an ADM checkpoint, a hub id (owner/name), package.module:function, or the YAML file of a "
    "backbone section (two stages)."
)
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting, e.g. seed=3. Repeatable.")
]


def main() -> None:
    """Run the command line."""
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
    with _errors():
        from tasks.config import AugmentConfig, placed
        from tasks.presets import load_preset, parse_overrides

        overrides = parse_overrides(assignments or [])
        config = placed(load_preset(AugmentConfig, preset, overrides=overrides | ({"store": store} if store else {})))
        from tasks.checks import check_inputs

        check_inputs(config)
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
    with _errors():
        from tasks.config import DownstreamConfig
        from tasks.presets import load_preset, parse_overrides

        overrides = parse_overrides(assignments or [])
        config = load_preset(DownstreamConfig, preset, overrides=overrides | ({"store": store} if store else {}))
        from tasks.downstream import resolved

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
    with _errors():
        from tasks.config import TrainBackboneConfig
        from tasks.presets import load_preset, parse_overrides

        config = load_preset(TrainBackboneConfig, preset, overrides=parse_overrides(assignments or []))
        from flows.train_backbone import train_backbone as run

        typer.echo(f"backbone: {run(config)}")


@app.command(name="judge-backbone")
def judge_backbone(
    preset: Annotated[str, typer.Argument(help="A backbone preset of prefect.yaml, e.g. digits.")],
    assignments: Settings = None,
) -> None:
    """Judge a backbone that is trained already, and write its model card anew; nothing else of it changes.

    Give the settings that it was trained with: the card repeats them.

    Example: `minority judge-backbone digits --set out=/tmp/digits --set quality.bits_images=50`
    """
    with _errors():
        from tasks.config import TrainBackboneConfig
        from tasks.presets import load_preset, parse_overrides

        config = load_preset(TrainBackboneConfig, preset, overrides=parse_overrides(assignments or []))
        from tasks.backbone import judge

        typer.echo(f"model card: {judge(config)}")


@app.command()
def calibrate(
    preset: Annotated[str, typer.Argument(help="A calibration preset of prefect.yaml, e.g. digits.")],
    assignments: Settings = None,
    store: Annotated[str | None, typer.Option(help="Folder or fsspec URL that receives the result.")] = None,
) -> None:
    """Search the sampler settings that keep the most samples per unit of compute, and print a preset to paste.

    Example: `minority calibrate digits --set calibration.budget=200000`
    """
    with _errors():
        from tasks.config import CalibrateConfig, placed
        from tasks.presets import load_preset, parse_overrides

        overrides = parse_overrides(assignments or [])
        config = placed(load_preset(CalibrateConfig, preset, overrides=overrides | ({"store": store} if store else {})))
        from tasks.checks import check_workspace

        check_workspace(config.augment())
        from flows.calibrate import calibrate as run
        from flows.result_table import print_calibration

        print_calibration(run(config))


@app.command()
def sample(
    backbone: Annotated[str, typer.Option(help=_BACKBONE)],
    out: Annotated[Path, typer.Option(help="Folder that receives grid.png and one file a sample.")],
    num: Annotated[int, typer.Option(min=1, help="Samples to draw.")] = 16,
    guidance: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Sampler setting, e.g. self_guidance.scale=2, steps=50. Repeatable."),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(metavar="A,B,C", help="Draw the same seeds by several named samplers, e.g. ancestral,sgms."),
    ] = None,
    label: Annotated[list[int] | None, typer.Option(help="Labels to go through; all of them by default.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides all noise.")] = 0,
    flag: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="ADM flag, e.g. preset=celeba64. Repeatable.")
    ] = None,
) -> None:
    """Draw images from a backbone, without the pipeline.

    Example: `minority sample --backbone backbones/digits --num 40 --out rare --guidance self_guidance.scale=6`

    Side by side: `minority sample --backbone backbones/digits --num 20 --out rows --compare ancestral,jacobian-free`
    """
    with _errors():
        from tasks.errors import InputError
        from tasks.images import compare_to_folder, draw_to_folder
        from tasks.presets import parse_overrides

        flags = parse_overrides(flag or [])
        if compare is not None:
            if guidance:
                raise InputError("--compare draws named samplers as they are; leave --guidance out.")
            names = [name.strip() for name in compare.split(",")]
            costs = compare_to_folder(backbone, out, names, num=num, labels=label, seed=seed, flags=flags)
            for name, evaluations in costs.items():
                typer.echo(f"{name}: {num} samples, {evaluations:g} evaluations each")
            typer.echo(f"side by side: {out / 'grid.png'}")
            return
        count = draw_to_folder(
            backbone,
            out,
            num=num,
            sampler=parse_overrides(guidance or []),
            labels=label,
            seed=seed,
            flags=flags,
        )
        typer.echo(f"{count} samples and grid.png in {out}")


@app.command()
def convert(
    checkpoint: Annotated[str, typer.Argument(help="An ADM checkpoint (.pt).")],
    out: Annotated[Path, typer.Option(help="Folder that receives the model as diffusers lays it out.")],
    flag: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="ADM flag, e.g. preset=celeba64. Repeatable.")
    ] = None,
) -> None:
    """Save an ADM checkpoint as a diffusers folder.

    Example: `minority convert checkpoints/celeba64.pt --flag preset=celeba64 --out celeba64`
    """
    with _errors():
        from tasks.conversion import convert_to_folder
        from tasks.presets import parse_overrides

        typer.echo(f"diffusers folder: {convert_to_folder(checkpoint, out, flags=parse_overrides(flag or []))}")


@app.command()
def score(
    folder: Annotated[Path, typer.Argument(help="Images of one size; class-named subfolders give labels.")],
    backbone: Annotated[str, typer.Option(help=_BACKBONE)],
    out: Annotated[Path, typer.Option(help="Parquet file that receives one row an image.")],
    seed: Annotated[int, typer.Option(min=0, help="Decides all noise.")] = 0,
    flag: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="ADM flag, e.g. preset=celeba64. Repeatable.")
    ] = None,
) -> None:
    """Score a folder of images: minority score (larger = rarer) and negative ELBO in bits/dim.

    A latent backbone scores the images' latents, and its negative ELBO is a density's (docs/backbones.md).

    Example: `minority score photos/ --backbone backbones/digits --out scores.parquet`
    """
    with _errors():
        from tasks.images import score_folder
        from tasks.presets import parse_overrides

        count = score_folder(folder, backbone, out, seed=seed, flags=parse_overrides(flag or []))
        typer.echo(f"{count} images scored: {out}")


@app.command()
def metrics(
    real: Annotated[Path, typer.Option(help="Folder of real images; class-named subfolders are fine.")],
    generated: Annotated[Path, typer.Option(help="Folder of images of the same size.")],
    out: Annotated[Path | None, typer.Option(help="JSON file that receives the figures.")] = None,
    features: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Where images are compared, e.g. kind=inception, weights=FILE."),
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="For --features kind=backbone.")] = None,
    neighbours: Annotated[int, typer.Option(min=1, help="k of the neighbour metrics.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Decides the intervals' draws.")] = 0,
) -> None:
    """Measure generated images against real ones: rarity, realism, variety, FID, KID, yield, with 95 % intervals.

    Example: `minority metrics --real photos/ --generated samples/ --out metrics.json`
    """
    with _errors():
        from flows.result_table import print_metrics
        from tasks.presets import parse_overrides
        from tasks.set_metrics import compare_folders, extractor_settings, metrics_json

        report = compare_folders(
            real,
            generated,
            features=extractor_settings(parse_overrides(features or [])),
            neighbours=neighbours,
            backbone=backbone,
            seed=seed,
        )
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_bytes(metrics_json(report))
        print_metrics({name: tuple(figure) for name, figure in report.figures.items()}, report.warnings)


@app.command()
def verify(manifest: Annotated[str, typer.Argument(help="Path or URL of a manifest.json.")]) -> None:
    """Check every shard, checksum, row and count of a published run.

    Example: `minority verify runs/digits/runs/0a1b2c3d4e5f/manifest.json`
    """
    with _errors():
        from datasets.verify import verify as find_problems

        problems = find_problems(manifest)
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(1)
    typer.echo(f"sound: {manifest}")


@app.command()
def clean(
    store: Annotated[str, typer.Option(help="Folder or fsspec URL of the datasets.")] = "runs",
    older_than: Annotated[str, typer.Option(metavar="AGE", help="Untouched for so long: 90s, 30m, 12h, 7d.")] = "7d",
    delete: Annotated[bool, typer.Option("--delete", help="Remove what is listed; without it nothing is.")] = False,
) -> None:
    """List what abandoned runs and killed writers left: unpublished runs, staging of published ones, torn files.

    Published files, and runs that somebody works on, are never among them.

    Example: `minority clean --store runs --older-than 7d --delete`
    """
    with _errors():
        from tasks.cleaning import clean_store, parse_age

        for line in clean_store(store, older_than=parse_age(older_than), delete=delete):
            typer.echo(line)


@app.command()
def presets() -> None:
    """List what can be run.

    Example: `minority presets`
    """
    with _errors():
        from tasks.presets import list_presets

        for flow, name, description in list_presets():
            typer.echo(f"{flow}/{name}\n    {description}")


@app.command()
def describe(
    preset: Annotated[str, typer.Argument(help="An augment preset of prefect.yaml, e.g. digits.")],
    out: Annotated[Path | None, typer.Option(help="Folder that receives the card and a picture of examples.")] = None,
    assignments: Settings = None,
) -> None:
    """Tell what the real images of a preset are: counts a group and split, missing values, duplicates, examples.

    Example: `minority describe digits --out digits-card`
    """
    with _errors():
        from tasks.config import AugmentConfig
        from tasks.description import describe_dataset
        from tasks.presets import load_preset, parse_overrides

        config = load_preset(AugmentConfig, preset, overrides=parse_overrides(assignments or []))
        typer.echo(describe_dataset(config.dataset, out))


@app.command()
def doctor(
    backbone: Annotated[str | None, typer.Option(help=f"Examine this backbone alone. {_BACKBONE}")] = None,
    flag: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="ADM flag, e.g. preset=celeba64. Repeatable.")
    ] = None,
) -> None:
    """Tell what is missing on this machine, and how to mend it. Exits 1 where a preset cannot run at all.

    Example: `minority doctor`

    Of one backbone: `minority doctor --backbone backbones/digits`
    """
    with _errors():
        from tasks.doctor import examine, examine_backbone
        from tasks.presets import parse_overrides

        findings = examine() if backbone is None else examine_backbone(backbone, parse_overrides(flag or []))
    for finding in findings:
        typer.echo(finding)
    if any(finding.startswith("MISSING") for finding in findings):
        raise typer.Exit(1)


@contextmanager
def _errors() -> Iterator[None]:
    """Turn what went wrong into one line and an exit code."""
    # Errors known here: InputError (ValueError) and OSError are the caller's, RunIncompleteError is the run's.
    try:
        yield
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except RuntimeError as error:
        server = str(error).removeprefix("Failed to reach API at ")  # Prefect has no type of its own for it
        if server != str(error):
            typer.echo(
                f"error: no Prefect server answers at {server}; start it (prefect server start), or unset "
                "PREFECT_API_URL to run with a temporary one.",
                err=True,
            )
            raise typer.Exit(2) from None
        if type(error).__name__ != "RunIncompleteError":
            raise
        typer.echo(f"failed: {error}", err=True)
        raise typer.Exit(2 if isinstance(error.__cause__, (ValueError, OSError)) else 1) from None
    except KeyboardInterrupt:
        typer.echo("interrupted; run the same command again to go on.", err=True)
        sys.exit(130)
