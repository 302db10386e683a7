"""What a calibration found: figures with their uncertainty, a picture, and a preset to paste."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import yaml
from prefect import task
from prefect.artifacts import create_markdown_artifact

from datasets.storage.canonical import canonical_json
from datasets.storage.escaping import for_markdown
from minority.calibration.outcome import Measured, Objective, floors_probability, ratio_interval, reaches_floors
from minority.calibration.space import PLAIN, Candidate
from minority.guidance.method import default_of
from minority.runtime.image_arrays import choose
from minority.sampling.settings import SamplerSettings
from tasks.augment.evaluating import evaluate_images
from tasks.calibration.frontier_plot import Point, frontier_picture
from tasks.calibration.search import Measurement, calibration_store, candidates_of, diversity_of, read_measured, winners
from tasks.config.runs import CalibrateConfig
from tasks.execution.failures import TRIED_AGAIN
from tasks.execution.showing import artifact_key, show_picture
from tasks.inputs.workspace import Workspace, open_workspace

_PICTURE = "frontier.png"


@dataclass(frozen=True)
class CalibrationSummary:
    """What a calibration found.

    Attributes:
        winner: The settings of the chosen objective in a line; None where no candidate is sure to reach the floors.
        winners: The settings of either objective, by its name.
        confirmed: Whether the winner reaches the floors on fresh seeds too.
        preset: The winner as YAML, to be pasted into a preset.
        rows: A row of figures for each verified candidate.
        spent: Denoiser evaluations.
        samples: Samples drawn.
        folder: Where result, picture and preset lie.
        figures: What was measured of every candidate, in the search and on fresh seeds, as result.json has it.
    """

    winner: str | None
    winners: dict[Objective, str | None]
    confirmed: bool
    preset: str
    rows: list[dict[str, str]]
    spent: float
    samples: int
    folder: str
    figures: Mapping[str, object] = field(default_factory=dict)


def real_reference(workspace: Workspace) -> Measured | None:
    """What unseen real images reach under the same filters: the validation split, never the test split.

    Images of groups that are not drawn for do not count.
    """
    real = workspace.real
    known = np.flatnonzero(real.validation_groups >= 0)
    if len(known) < 2:
        return None
    images = choose(real.validation_images, known)
    evaluated = evaluate_images(workspace, images, real.validation_groups[known])
    verdicts = evaluated.verdicts
    return Measured(
        samples=len(images),
        rare=int(verdicts.rare.sum()),
        valid=int(verdicts.valid.sum()),
        new=int(verdicts.new.sum()),
        label_kept=int(verdicts.label_kept.sum()),
        passed=int(verdicts.passed_by(workspace.config.selection.policy, evaluated.groups).sum()),
        diversity=diversity_of(workspace, evaluated.features),
    )


@task(task_run_name="result of {config.name}", **TRIED_AGAIN)
def write_calibration(
    config: CalibrateConfig, search: Sequence[Measurement], verification: Sequence[Measurement]
) -> CalibrationSummary:
    """Write result, picture and preset, and show them as an artifact; see `write_result`."""
    summary = write_result(config, search, verification)
    create_markdown_artifact(_markdown(summary), key="calibration", description="What the calibration found")
    picture = calibration_store(open_workspace(config.augment()), config).read(_PICTURE)
    show_picture(
        picture, key=artifact_key(config.name, "frontier"), description="Valid and kept samples of every candidate"
    )
    return summary


def write_result(
    config: CalibrateConfig, search: Sequence[Measurement], verification: Sequence[Measurement]
) -> CalibrationSummary:
    """Write result.json, frontier.png and preset.yaml into the calibration's folder.

    Args:
        config: The calibration.
        search: All measurements of the search.
        verification: Those on fresh seeds.
    """
    workspace = open_workspace(config.augment())
    store, candidates = calibration_store(workspace, config), candidates_of(config)
    searched, fresh = read_measured(config, search), read_measured(config, verification)
    chosen = winners(config, searched)
    best = chosen[config.calibration.objective]
    verified = {i: measured for i, measured in enumerate(fresh) if measured.samples}
    everything = [*searched, *verified.values()]
    summary = CalibrationSummary(
        winner=None if best is None else candidates[best].name,
        winners={objective: None if i is None else candidates[i].name for objective, i in chosen.items()},
        confirmed=best is not None and reaches_floors(config.calibration.floors, fresh[best]),
        preset="" if best is None else _preset(candidates[best].sampler),
        rows=_rows(workspace, candidates, verified, chosen),
        spent=sum(measured.evaluations for measured in everything),
        samples=sum(measured.samples for measured in everything),
        folder=store.url(),
    )
    points = [
        Point(candidate.name, measured.valid_share, measured.kept_share, measured.per_1000_evaluations, i == best)
        for i, (candidate, measured) in enumerate(zip(candidates, searched, strict=True))
        if measured.samples
    ]
    store.write(_PICTURE, frontier_picture(points, validity_floor=config.calibration.validity_floor))
    store.write("preset.yaml", summary.preset.encode())
    result = _result(config, candidates, searched, verified)
    shown = {name: value for name, value in asdict(summary).items() if name != "figures"}
    store.write("result.json", canonical_json(result | {"summary": shown}))
    return replace(summary, figures={name: result[name] for name in ("candidates", "verified")})


def _rows(
    workspace: Workspace,
    candidates: Sequence[Candidate],
    verified: Mapping[int, Measured],
    chosen: Mapping[Objective, int | None],
) -> list[dict[str, str]]:
    """A row for every verified candidate, the winners marked, and one for unseen real images."""
    plain = next((measured for i, measured in verified.items() if candidates[i].name == PLAIN), None)
    top = None if chosen["per_evaluation"] is None else verified.get(chosen["per_evaluation"])
    marks = {"per_evaluation": "most per evaluation", "yield": "highest yield"}
    rows = []
    for i, measured in verified.items():
        won = [marks[objective] for objective, winner in chosen.items() if winner == i]
        name = candidates[i].name + (f" ({', '.join(won)})" if won else "")
        rows.append(_row(name, measured, top=top, plain=plain))
    reference = real_reference(workspace)
    return rows if reference is None else [*rows, _row("unseen real images", reference, top=None, plain=plain)]


def _row(name: str, counts: Measured, *, top: Measured | None, plain: Measured | None) -> dict[str, str]:
    """One row of figures.

    Args:
        name: Of the candidate.
        counts: What was measured.
        top: The winner by kept samples per evaluation, where there is one.
        plain: Plain sampling, where it was measured.
    """
    row = {"sampler": name, "samples": str(counts.samples), "kept, %": _share(counts, counts.passed)}
    row["yield over plain"] = "-" if plain is None or counts is plain else ratio_text(counts, plain, objective="yield")
    row |= {"valid, %": _share(counts, counts.valid), "rare, %": _share(counts, counts.rare)}
    row["diversity"] = "-" if counts.diversity is None else f"{counts.diversity:.2f}"
    low, high = counts.per_1000_evaluations_interval()
    measured = counts.evaluations > 0
    row["kept per 1000 evaluations"] = (
        f"{counts.per_1000_evaluations:.2f} ({low:.2f} ... {high:.2f})" if measured else "-"
    )
    behind = top is not None and counts is not top and measured
    row["best per evaluation over this"] = (
        ratio_text(top, counts, objective="per_evaluation") if top and behind else "-"
    )
    return row


def ratio_text(ours: Measured, theirs: Measured, *, objective: Objective) -> str:
    """How many times more one keeps than another, with a 95 % interval; from below alone where the other kept none.

    Args:
        ours: What is compared.
        theirs: With what.
        objective: Kept per evaluation, or per sample.
    """
    point, (low, high) = ratio_interval(ours, theirs, objective=objective)
    if not np.isfinite([point, low, high]).all():
        return f"over {low:.1f} x" if ours.passed and np.isfinite(low) else "-"
    return f"{point:.1f} x ({low:.1f} ... {high:.1f})"


def _share(measured: Measured, count: int) -> str:
    low, high = measured.interval(count)
    return f"{100 * count / max(1, measured.samples):.1f} ({100 * low:.1f} ... {100 * high:.1f})"


def _preset(sampler: SamplerSettings) -> str:
    """The settings that differ from the defaults, as YAML."""
    plain = SamplerSettings().to_dict()
    changed = {name: value for name, value in sampler.to_dict().items() if value != plain.get(name) or name == "steps"}
    for method in sampler.guidance:
        kind = type(method)
        settings = changed[method.key].items()
        changed[method.key] = {key: value for key, value in settings if getattr(method, key) != default_of(kind, key)}
    return yaml.safe_dump({"sampler": changed}, sort_keys=False)


def _result(
    config: CalibrateConfig,
    candidates: Sequence[Candidate],
    searched: Sequence[Measured],
    verified: Mapping[int, Measured],
) -> dict[str, object]:
    return {
        "config": config.model_dump(mode="json", exclude={"store", "device", "workers"}),
        "candidates": [
            {"name": candidate.name, "sampler": candidate.sampler.to_dict(), "measured": asdict(measured)}
            | {"floors_probability": floors_probability(config.calibration.floors, measured)}
            for candidate, measured in zip(candidates, searched, strict=True)
            if measured.samples
        ],
        "verified": {candidates[i].name: asdict(measured) for i, measured in verified.items()},
    }


def _markdown(summary: CalibrationSummary) -> str:
    columns = list(summary.rows[0])
    table = [columns, ["-"] * len(columns), *([row[name] for name in columns] for row in summary.rows)]
    lines = ["| " + " | ".join(map(for_markdown, cells)) + " |" for cells in table]
    unsure = "none is sure to reach the floors"
    winners = [f"- {objective}: **{name or unsure}**" for objective, name in summary.winners.items()]
    spent = f"{summary.samples} samples, {summary.spent:.0f} denoiser evaluations"
    return "\n".join([f"Winners, {spent}", "", *winners, "", *lines, "", "```yaml", summary.preset + "```", ""])
