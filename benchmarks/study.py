"""Does it help? Every arm on one data set, tuned on its validation split, with intervals.

    .venv/bin/python -m benchmarks.study digits --out runs/study

Draws candidates by every sampler from a backbone that was trained on the training split alone, evaluates them against
that
split, fills every class up to the commonest one by several policies, and trains every arm: four trials each on the
validation split, then the chosen trial with other seeds, which alone are tested. What is done already is read from
`--out`, so that the same command goes on where it was cut short. Prints Markdown and leaves in `--out`/<set> the
candidates, the verdicts, the predictions of every classifier, results.parquet and report.md.
"""

import argparse
import time
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.study_candidates import (
    SAMPLERS,
    SOURCES,
    Source,
    chosen,
    draw_candidates,
    fit_filter,
    missing_images,
    planned_labels,
)
from benchmarks.study_data import (
    load_arrays,
    load_data,
    load_images,
    save_arrays,
    save_data,
    save_images,
)
from benchmarks.study_runs import Study
from benchmarks.study_tables import markdown
from minority.backbones import Backbone, load_backbone
from minority.downstream.arms import REAL_ARMS, Arm, synthetic_arms
from minority.downstream.data import DownstreamData, LabelledImages
from minority.downstream.jobs import Comparison, Outcome
from minority.downstream.settings import DownstreamSettings, Jitter, NetworkSettings
from minority.features import ExtractorSettings, build_extractor
from tasks.config.paths import project_path
from tasks.config.presets import load_preset, parse_overrides
from tasks.config.runs import AugmentConfig
from tasks.downstream.data import real_images
from tasks.inputs.real_data import load_real_data


def read_data(arguments: argparse.Namespace, config: AugmentConfig, folder: Path) -> DownstreamData:
    """The real images: from the file in `folder` where there is one, else by the preset's reader."""
    small = folder / "data.zip"
    if small.is_file():
        return load_data(small)
    data = real_images(load_real_data(config.dataset), by_class=arguments.groups == "class")
    if arguments.prepare:
        save_data(small, data)
    return data


def synthetic_sources(
    data: DownstreamData, backbone: Backbone, folder: Path, arguments: argparse.Namespace, config: AugmentConfig
) -> dict[str, LabelledImages]:
    """Draw, evaluate and choose; what lies in `folder` is read."""
    missing = missing_images(data.train.labels, num_classes=len(data.class_names), cap=arguments.cap)
    labels = planned_labels(missing, candidates=arguments.candidates)
    evaluated: dict[str, tuple[LabelledImages, dict[str, Any]]] = {}
    candidate_filter = cache(partial(_build_filter, data, backbone, arguments, config))
    for sampler in arguments.samplers:
        path = folder / "candidates" / f"{sampler}.zip"
        if path.is_file():
            candidates = load_images(path)
        else:
            extract, fitted = candidate_filter()
            start = time.monotonic()
            candidates = draw_candidates(
                backbone,
                sampler,
                labels=labels,
                seed=arguments.seed,
                steps=arguments.sampling_steps,
                batch_size=arguments.sampling_batch,
                precision=arguments.sampling_precision,
                reference=fitted.reference,
                extract=extract,
                device=arguments.device,
            )
            save_images(path, candidates)
            say(f"{sampler}: {len(candidates)} candidates in {time.monotonic() - start:.0f} s")
        verdicts_path = folder / "candidates" / f"{sampler}-verdicts.npz"
        if verdicts_path.is_file():
            verdicts = load_arrays(verdicts_path)
        else:
            extract, fitted = candidate_filter()
            start = time.monotonic()
            said = fitted.evaluate(extract(candidates.images), candidates.labels, images=candidates.images)
            verdicts = said.columns
            save_arrays(verdicts_path, verdicts)
            say(f"{sampler}: evaluated in {time.monotonic() - start:.0f} s")
        evaluated[sampler] = (candidates, verdicts)
    found = {}
    for source in sources(arguments.samplers):
        candidates, verdicts = evaluated[source.sampler]
        taken = candidates.subset(chosen(source.policy, verdicts, candidates.labels, missing=missing))
        by_class = np.bincount(taken.labels, minlength=len(data.class_names))
        say(f"{source.name}: {len(taken)} images, by class {by_class.tolist()} of {missing.tolist()}")
        if len(taken):
            found[source.name] = taken
    return found


def sources(samplers: Sequence[str]) -> list[Source]:
    """The sources whose sampler was asked for."""
    return [source for source in SOURCES if source.sampler in samplers]


def arms_of(found: Sequence[str], samplers: Sequence[str]) -> list[Arm]:
    """Arms without synthetic images, every arm of the main sources, and the two plainest of the others."""
    arms = list(REAL_ARMS)
    ordered = sorted((s for s in sources(samplers) if s.name in found), key=lambda source: not source.main)
    for source in ordered:
        arms += synthetic_arms(source.name) if source.main else synthetic_arms(source.name)[:2]
    return arms


def _build_filter(
    data: DownstreamData, backbone: Backbone, arguments: argparse.Namespace, config: AugmentConfig
) -> Any:
    features = ExtractorSettings(kind=arguments.features) if arguments.features else config.features
    extract = build_extractor(
        features,
        backbone=backbone,
        train_images=data.train.images,
        train_labels=data.train.labels,
        device=arguments.device,
    )
    fitted = fit_filter(data.train, extract=extract, mirrored_is_negative=not arguments.flip, device=arguments.device)
    return extract, fitted


def settings_of(arguments: argparse.Namespace) -> DownstreamSettings:
    """The budget of every arm."""
    return DownstreamSettings(
        network=NetworkSettings(kind=arguments.network, width=arguments.width),
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        learning_rates=tuple(arguments.learning_rates),
        weight_decays=tuple(arguments.weight_decays),
        trials=arguments.trials,
        tuning_seeds=arguments.tuning_seeds,
        jitter=Jitter(flip=arguments.flip, rotation=arguments.rotation),
        precision=arguments.precision,
        record_steps=not arguments.no_recording,
    )


def save_results(outcome: Outcome, data: DownstreamData, folder: Path) -> None:
    """results.parquet: every figure of every classifier that was tested."""
    from minority.downstream.metrics import results_table  # here, so that a machine without fairlearn can train

    runs = {(arm, seed): found for arm, by_seed in outcome.tested.items() for seed, found in by_seed.items()}
    results_table(runs, data).to_parquet(folder / "results.parquet")


def say(text: str, *, start: float = time.monotonic()) -> None:
    print(f"[{time.monotonic() - start:6.1f} s] {text}", flush=True)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", help="a preset of augment, e.g. digits")
    parser.add_argument("--set", action="append", default=[], help="key=value of the preset, e.g. dataset.folder=...")
    parser.add_argument("--backbone", help="a folder; the preset's where not given")
    parser.add_argument("--out", default="runs/study")
    parser.add_argument(
        "--prepare", action="store_true", help="only write OUT/PRESET/data.zip, to be carried elsewhere"
    )
    parser.add_argument("--samplers", default=",".join(SAMPLERS), help="names, comma-separated; none for no synthetic")
    parser.add_argument("--candidates", type=int, default=2000, help="drawn by every sampler")
    parser.add_argument("--cap", type=int, help="synthetic images of a class, at most")
    parser.add_argument("--sampling-steps", type=int, default=50)
    parser.add_argument("--sampling-batch", type=int, default=128)
    parser.add_argument("--sampling-precision", default="fp32", choices=("fp32", "bf16", "fp16"))
    parser.add_argument("--features", help="where candidates are evaluated: pixels, backbone, classifier; the preset's")
    parser.add_argument("--groups", choices=("class", "own"), default="class", help="classes, or the set's groups")
    parser.add_argument("--network", default="small-cnn")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[3e-3, 1e-3])
    parser.add_argument("--weight-decays", type=float, nargs="+", default=[0.3, 0.03])
    parser.add_argument("--flip", action="store_true", help="mirror images: right for photographs, wrong for digits")
    parser.add_argument("--rotation", type=float, default=10.0, help="of every arm's augmentation, degrees")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--no-recording", action="store_true", help="no CUDA graphs")
    parser.add_argument("--trials", type=int, default=4, help="settings that every arm may try")
    parser.add_argument("--tuning-seeds", type=int, default=2, help="trainings of every trial")
    parser.add_argument("--seeds", type=int, default=10, help="tested trainings of every arm")
    parser.add_argument("--seed", type=int, default=0, help="of the candidates")
    parser.add_argument("--workers", type=int, default=1, help="processes that train side by side")
    parser.add_argument(
        "--time-limit", type=float, default=float("inf"), help="seconds, after which no training begins"
    )
    parser.add_argument("--only", help="arms whose name holds this text, besides those without synthetic images")
    parser.add_argument(
        "--against-others",
        action="append",
        default=[],
        metavar="ARM",
        help="another arm to compare with those without synthetic images; picked by eye, a hint only",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    found = parser.parse_args(arguments)
    found.samplers = [name for name in found.samplers.split(",") if name and name != "none"]
    unknown = sorted(set(found.samplers) - set(SAMPLERS))
    if unknown:
        parser.error(f"there is no sampler {', '.join(unknown)}; take some of {', '.join(SAMPLERS)}.")
    return found


def main() -> None:
    arguments = parse()
    deadline = time.monotonic() + arguments.time_limit
    if arguments.device == "cpu":
        torch.set_num_threads(1)
    folder = Path(arguments.out) / arguments.preset
    config = load_preset(AugmentConfig, arguments.preset, overrides=parse_overrides(arguments.set))
    data = read_data(arguments, config, folder)
    say(f"{len(data.train)} training, {len(data.validation)} validation, {len(data.test)} test images")
    if arguments.prepare:
        return
    if arguments.samplers:
        backbone = load_backbone(project_path(arguments.backbone or config.backbone.path), **config.backbone.flags)
        if getattr(backbone.denoiser, "no_label", None) is None and "label-guided" in arguments.samplers:
            arguments.samplers.remove("label-guided")
            say("label-guided: left out, the backbone was trained with a label for every image")
        synthetic = synthetic_sources(data, backbone, folder, arguments, config)
        data = DownstreamData(**{**vars(data), "synthetic": synthetic})
    arms = arms_of(list(data.synthetic), arguments.samplers)
    if arguments.only:
        arms = [arm for arm in arms if not arm.is_generative or arguments.only in arm.name]
    if unknown := sorted(set(arguments.against_others) - {arm.name for arm in arms}):
        raise SystemExit(f"--against-others: there is no arm {', '.join(unknown)} among those that are trained here.")
    comparison = Comparison(data, settings_of(arguments), arms=arms, seeds=arguments.seeds)
    study = Study(comparison, folder / "predictions", device=arguments.device)
    outcome = study.run(workers=arguments.workers, deadline=deadline, say=partial(say))
    report = markdown(outcome, arms, data, more=arguments.against_others)
    (folder / "report.md").write_text(report, encoding="utf-8")
    save_results(outcome, data, folder)
    print(report)


if __name__ == "__main__":
    main()
