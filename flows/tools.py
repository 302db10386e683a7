"""Commands that work on files alone, without a run: draw, convert, score, measure, verify, clean up."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.options import shared
from flows.output import note, progress, result, say
from flows.shell import BACKBONE, Flags, Settings, errors_in_one_line

tools = typer.Typer()


@tools.command()
@shared("config", "json")
def sample(
    backbone: Annotated[str | None, typer.Option(help=BACKBONE)] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="An augment preset instead: its backbone and sampler, and real images for what needs them."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder that receives grid.png and one file a sample.")] = None,
    num: Annotated[int, typer.Option(min=1, max=10**7, help="Samples to draw.")] = 16,
    guidance: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Short for --set sampler.KEY=VALUE, e.g. name=sgms. Repeatable."),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(metavar="A,B,C", help="Draw the same seeds by several named samplers, e.g. ancestral,sgms."),
    ] = None,
    label: Annotated[list[int] | None, typer.Option(help="Labels to go through; all of them by default.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides all noise.")] = 0,
    flag: Flags = None,
    assignments: Settings = None,
    names: Annotated[bool, typer.Option("--list", help="List the named samplers with their papers, and end.")] = False,
) -> None:
    """Draw images from a backbone, without the pipeline.

    Example: `minority sample --backbone backbones/digits --num 40 --out rare --set sampler.self_guidance.scale=6`

    Side by side: `minority sample --backbone backbones/digits --num 20 --out rows --compare ancestral,jacobian-free`

    With what learns from real images: `minority sample --preset digits --out low --set sampler.name=low-density`
    """
    with errors_in_one_line(), progress():
        from tasks.commands.images import compare_to_folder, draw_to_folder, list_samplers
        from tasks.config.presets import parse_overrides
        from tasks.errors import InputError

        if names:
            listed = list_samplers()

            def show_samplers() -> None:
                for sampler in listed:
                    say(sampler.text)

            result(lambda: {"samplers": [vars(sampler) for sampler in listed]}, show=show_samplers)
            return
        if out is None:
            raise InputError("--out is not set; name the folder that receives the samples.")
        changes = parse_overrides(assignments or [])
        sampler = {key.removeprefix("sampler."): changes.pop(key) for key in [*changes] if key.startswith("sampler.")}
        sampler |= parse_overrides(guidance or [])
        if compare is not None and sampler:
            raise InputError("--compare draws named samplers as they are; leave settings of sampler out.")
        drawing: dict[str, Any] = {
            "num": num,
            "labels": label,
            "seed": seed,
            "flags": parse_overrides(flag or []),
            "preset": preset,
            "changes": changes,
        }
        document: dict[str, Any] = {"samples": num, "folder": str(out), "picture": str(out / "grid.png")}
        if compare is not None:
            chosen = [name.strip() for name in compare.split(",")]
            costs = compare_to_folder(backbone, out, chosen, **drawing)

            def show() -> None:
                for name, evaluations in costs.items():
                    say(f"{name}: {num} samples, {evaluations:g} evaluations each")
                say(f"side by side: {out / 'grid.png'}")

            result(lambda: document | {"evaluations_a_sample": costs}, show=show)
            return
        evaluations = draw_to_folder(backbone, out, sampler=sampler, **drawing)
        result(
            lambda: document | {"evaluations_a_sample": evaluations},
            show=lambda: say(f"{num} samples and grid.png in {out}"),
        )


@tools.command()
@shared("json")
def convert(
    checkpoint: Annotated[str, typer.Argument(help="An ADM checkpoint (.pt).")],
    out: Annotated[Path, typer.Option(help="Folder that receives the model as diffusers lays it out.")],
    flag: Flags = None,
) -> None:
    """Save an ADM checkpoint as a diffusers folder.

    Example: `minority convert checkpoints/celeba64.pt --flag preset=celeba64 --out celeba64`
    """
    with errors_in_one_line():
        from tasks.commands.conversion import convert_to_folder
        from tasks.config.presets import parse_overrides

        folder = convert_to_folder(checkpoint, out, flags=parse_overrides(flag or []))
        result(lambda: {"folder": str(folder)}, show=lambda: say(f"diffusers folder: {folder}"))


@tools.command()
@shared("json")
def score(
    folder: Annotated[Path, typer.Argument(help="Images; class folders, or names as sample gives, tell labels.")],
    backbone: Annotated[str, typer.Option(help=BACKBONE)],
    out: Annotated[Path, typer.Option(help="Parquet file that receives one row an image.")],
    seed: Annotated[int, typer.Option(min=0, help="Decides all noise.")] = 0,
    variance: Annotated[
        str,
        typer.Option(help="Reverse variance of the bound: auto (learned, else fixed_large), fixed_small, fixed_large."),
    ] = "auto",
    elbo_steps: Annotated[
        int, typer.Option(min=1, help="Steps of the bound's chain: more make it tighter, each costs a network call.")
    ] = 10,
    resize: Annotated[
        bool,
        typer.Option("--resize", help="Cut images to their central square, and bring it to the backbone's size."),
    ] = False,
    flag: Flags = None,
) -> None:
    """Score a folder of images: minority score (larger = rarer) and negative ELBO in bits/dim.

    A latent backbone scores the images' latents, and its negative ELBO is a density's (docs/backbones.md).

    Example: `minority score photos/ --backbone backbones/digits --out scores.parquet`
    """
    with errors_in_one_line(), progress():
        from tasks.commands.scoring import score_folder, score_settings
        from tasks.config.presets import parse_overrides

        settings = score_settings(variance=variance, elbo_steps=elbo_steps)
        flags = parse_overrides(flag or [])
        scored = score_folder(
            folder, backbone, out, seed=seed, flags=flags, settings=settings, resize=resize, tell=note
        )
        result(lambda: scored | {"scores": str(out)}, show=lambda: say(f"{scored['images']} images scored: {out}"))


@tools.command()
@shared("json")
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
    with errors_in_one_line(), progress():
        from flows.result_table import print_metrics
        from tasks.commands.set_metrics import compare_folders, extractor_settings, metrics_document, metrics_json
        from tasks.config.presets import parse_overrides

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
        figures = {name: tuple(figure) for name, figure in report.figures.items()}
        result(lambda: metrics_document(report), show=lambda: print_metrics(figures, report.warnings))


@tools.command()
@shared("json")
def verify(manifest: Annotated[str, typer.Argument(help="Path or URL of a manifest.json.")]) -> None:
    """Check every shard, checksum, row and count of a published run.

    Example: `minority verify runs/digits/runs/0a1b2c3d4e5f/manifest.json`
    """
    with errors_in_one_line():
        from datasets.runs.verify import require_manifest
        from datasets.runs.verify import verify as find_problems

        require_manifest(manifest)
        problems = find_problems(manifest)

        def show() -> None:
            for problem in problems:
                say(problem, err=True)
            if not problems:
                say(f"sound: {manifest}")

        result(lambda: {"manifest": manifest, "sound": not problems, "problems": problems}, show=show)
    if problems:
        raise typer.Exit(1)


@tools.command()
@shared("json")
def provenance(image: Annotated[Path, typer.Argument(help="A PNG, wherever it came from.")]) -> None:
    """Tell whether a picture says that it is synthetic, and what drew it. Exits 1 where it says nothing.

    Images of runs with `publish.provenance` say so. One that says nothing may be synthetic all the same.

    Example: `minority provenance picture.png`
    """
    with errors_in_one_line():
        from dataclasses import asdict

        from datasets.runs.provenance import provenance_of_png

        found = provenance_of_png(image.read_bytes(), name=str(image))
        said = {} if found is None else {name: value for name, value in asdict(found).items() if value is not None}

        def show() -> None:
            if not said:
                say(f"{image} does not say what made it; it may be synthetic all the same.")
            else:
                say(f"{image} says that it is synthetic:")
            for name, value in said.items():
                say(f"  {name.replace('_', ' ')}: {value}")

        result(lambda: {"image": str(image), "synthetic": True if said else None, **said}, show=show)
    if found is None:
        raise typer.Exit(1)


@tools.command()
@shared("json")
def export(
    run: Annotated[str, typer.Argument(help="A published run's folder or manifest.json, or a dataset's name.")],
    to: Annotated[str, typer.Option(help="imagefolder, hf-parquet, fiftyone or coco.")],
    out: Annotated[str, typer.Option(help="Folder to write; it must not be there yet.")],
    store: Annotated[str, typer.Option(help="Folder or fsspec URL of the datasets, for a name.")] = "runs",
) -> None:
    """Copy a published run into a layout that other tools read, with scores and origin of every image as fields.

    Example: `minority export digits --to hf-parquet --out digits-parquet`
    """
    with errors_in_one_line():
        from datasets.export.layouts import export_run

        exported = export_run(run, out, layout=to, store=store)
        counts = ", ".join(f"{count:,} {source}" for source, count in exported.images.items())
        document = {"folder": str(exported.folder), "layout": to, "manifest": exported.manifest}
        result(
            lambda: document | {"images": exported.images},
            show=lambda: say(f"{counts} images of {exported.manifest}: {exported.folder}"),
        )


@tools.command()
@shared("json")
def clean(
    store: Annotated[str, typer.Option(help="Folder or fsspec URL of the datasets.")] = "runs",
    older_than: Annotated[str, typer.Option(metavar="AGE", help="Untouched for so long: 90s, 30m, 12h, 7d.")] = "7d",
    delete: Annotated[bool, typer.Option("--delete", help="Remove what is listed; without it nothing is.")] = False,
) -> None:
    """List what abandoned runs and killed writers left: unpublished runs, staging of published ones, torn files.

    Published files, and runs that somebody works on, are never among them.

    Example: `minority clean --store runs --older-than 7d --delete`
    """
    with errors_in_one_line():
        from tasks.commands.cleaning import clean_store, parse_age

        cleaned = clean_store(store, older_than=parse_age(older_than), delete=delete)

        def show() -> None:
            for line in cleaned.lines():
                say(line)

        result(cleaned.document, show=show)
