"""Render the report: one self-contained HTML file, its figures as JSON, and a picture for a README.

The page loads nothing from anywhere: style, charts and images are inside it, and its content security policy forbids
the rest. It holds no time, host or path of its own, so equal inputs give equal bytes.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from math import isinf, isnan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from minority.downstream.accuracy import METRIC_PHRASES
from minority.downstream.cost import in_words
from minority.neighbours.index import Accuracy
from tasks.augment.group_gate import GroupGate
from tasks.inputs.stored_headroom import StoredHeadroom
from tasks.report import figures, findings, pictures, recommendation, verdict
from tasks.report.findings import ClassFill, Estimate, SamplerFindings
from tasks.report.page_parts import content_hash, page_part
from tasks.report.reached import beside_headroom
from tasks.report.scores import SCORE_NAMES
from tasks.report.sprites import LARGEST_PIXELATED
from tasks.report.verdict import ArmResults, Downstream

Images = Callable[[Sequence[str]], np.ndarray]

_MOST_CLASSES_IN_A_CHART = 30
_COMPARISON = "minority downstream "
_FAIRNESS = {
    "demographic_parity_difference": "Demographic parity difference",
    "demographic_parity_ratio": "Demographic parity ratio",
    "equalized_odds_difference": "Equalised odds difference",
    "equalized_odds_ratio": "Equalised odds ratio",
    "attribute_accuracy": "Accuracy",
    "attribute_f1": "F1",
    "group_calibration_error": "Calibration error",
}


@dataclass(frozen=True, kw_only=True)
class ReportInputs:
    """Everything a report is made of.

    Attributes:
        dataset: Name of the dataset.
        run_id: Name of the run.
        recipe: Hash over everything that changes the images.
        config: The resolved config, shown as it is; it should name no absolute paths.
        backbone: Facts about the diffusion model, e.g. name and sha256.
        class_names: The classes, in the order of their labels.
        metadata: One row a candidate and a real image, columns of datasets.runs.records.METADATA_SCHEMA.
        images: Loads images by key: N keys -> (N, H, W, C) uint8, C = 1 or 3. Called once, with some hundred keys at
            most, of real, kept and rejected rows.
        quotas: Images wanted in the balanced set by class name, real and synthetic together.
        thresholds: Where the filters cut, by name of the score.
        results: The comparison of arms, or None where nothing was trained.
        cost_per_sample: Denoiser evaluations a sample, by sampler ("plain", "minority").
        reproduce: Commands that make this run again.
        licence: Licence and provenance of the real data.
        account: In which part every real image is, or why it is in none; "" leaves it out.
        gates: What the first round of every group with few or no real images showed.
        gallery: The page beside this one that shows every candidate; "" where there is none.
        neighbours: How well the neighbours among the real images were found; None where it is not known.
        headroom: What `minority headroom` found on these real images; None where it was not asked.
    """

    dataset: str
    run_id: str
    recipe: str
    config: Mapping[str, object]
    backbone: Mapping[str, str]
    class_names: Sequence[str]
    metadata: pd.DataFrame
    images: Images
    quotas: Mapping[str, int]
    thresholds: Mapping[str, float]
    results: ArmResults | None
    cost_per_sample: Mapping[str, float]
    reproduce: Sequence[str]
    licence: str
    account: str = ""
    gates: Sequence[GroupGate] = ()
    gallery: str = ""
    neighbours: Accuracy | None = None
    headroom: StoredHeadroom | None = None


@dataclass(frozen=True, kw_only=True)
class _Gallery:
    """The images the report shows, chosen and loaded."""

    bands: Sequence[pictures.Panel]
    rejected: Sequence[pictures.Panel]
    neighbours: Sequence[pictures.NeighbourPair]
    pairs: Sequence[pictures.SeedPair]
    loaded: Mapping[str, np.ndarray] = field(repr=False)

    @property
    def is_small(self) -> bool:
        """Whether the images are so small that the page shows their pixels instead of smoothing them."""
        return all(max(image.shape[:2]) <= LARGEST_PIXELATED for image in self.loaded.values())

    def mosaic(self, keys: Sequence[str], columns: int) -> str:
        """A data URI with the images of these keys."""
        return pictures.mosaic([self.loaded[key] for key in keys], columns=columns)


def render_report(inputs: ReportInputs) -> dict[str, bytes]:
    """Write the report.

    Returns:
        "report.html": the page, complete in itself; "metrics.json": every figure of its tables; "samples.png": the
        same labels and seeds as plain and as minority samples, for a README.

    Raises:
        ValueError: Where quotas name no class, arms were tested with different seeds, or loaded images have another
            shape.
    """
    gallery = _hang(inputs)
    metrics = _measure(inputs)
    page, script = _environment().get_template("report.html.j2"), page_part("report.js")
    html = page.render(
        inputs=inputs,
        config=json.dumps(inputs.config, indent=2, sort_keys=True, default=str),
        gallery=gallery,
        charts=_draw(inputs, metrics),
        score_names=SCORE_NAMES,
        unfilled=sorted((fill for fill in metrics["classes"] if fill.shortfall), key=lambda fill: -fill.shortfall),
        parts=_groups_shown(metrics["downstream"], inputs),
        fairness=_fairness_rows(metrics["downstream"]),
        gates=[(gate, findings.describe_gate(gate, inputs.metadata)) for gate in inputs.gates],
        image_commands=[command for command in inputs.reproduce if not command.startswith(_COMPARISON)],
        downstream_commands=inputs.reproduce[-1:],
        script=Markup(script),
        script_hash=content_hash(script),
        **metrics,
    )
    return {
        "report.html": html.encode("utf-8"),
        "metrics.json": findings.as_json(_published(metrics, inputs)),
        "samples.png": _readme_picture(gallery),
    }


def _measure(inputs: ReportInputs) -> dict[str, Any]:
    samplers = findings.evaluate_samplers(inputs.metadata, inputs.cost_per_sample)
    ratios = findings.compare_samplers(samplers)
    downstream = verdict.evaluate_results(inputs.results)
    real = inputs.metadata[inputs.metadata["source"] == "real"]["group"].value_counts()
    advice = recommendation.recommend(downstream, {str(name): int(count) for name, count in real.items()})
    return {
        "recommendation": None if advice is None else advice.to_text(),
        "verdict": verdict.pronounce(downstream, samplers, ratios=ratios),
        "samplers": samplers,
        "ratios": ratios,
        "same_first_round": findings.share_first_round(inputs.metadata),
        "classes": findings.fill_of_classes(inputs.metadata, inputs.class_names, quotas=inputs.quotas),
        "downstream": downstream,
        "headroom": beside_headroom(inputs.headroom, downstream),
        "reasons": findings.count_reasons(inputs.metadata),
        "fates": findings.count_fates(inputs.metadata),
        "scores": findings.summarise_scores(findings.score_columns(inputs.metadata)),
    }


def _published(metrics: Mapping[str, Any], inputs: ReportInputs) -> dict[str, object]:
    """What goes into metrics.json."""
    origin = {"dataset": inputs.dataset, "run_id": inputs.run_id, "recipe": inputs.recipe}
    gated = {"sparse_groups": {gate.group: findings.describe_gate(gate, inputs.metadata) for gate in inputs.gates}}
    shown: dict[str, object] = dict(gated) if inputs.gates else {}
    if inputs.neighbours is not None and inputs.neighbours.sample:
        shown |= {"neighbours": asdict(inputs.neighbours)}
    if inputs.headroom is None:
        metrics = {name: found for name, found in metrics.items() if name != "headroom"}
    return {**metrics, **origin, **shown, "thresholds": inputs.thresholds, "confidence": findings.CONFIDENCE}


def _hang(inputs: ReportInputs) -> _Gallery:
    """Choose the images, then load all of them in one call."""
    bands, rejected = pictures.score_bands(inputs.metadata), pictures.rejected_panels(inputs.metadata)
    neighbours, pairs = pictures.neighbour_pairs(inputs.metadata), pictures.seed_pairs(inputs.metadata)
    keys = [key for panel in (*bands, *rejected) for key in panel.keys]
    keys += [key for pair in neighbours for key in (pair.key, pair.nearest_key)]
    keys += [key for pair in pairs for key in pair.keys.values()]
    return _Gallery(
        bands=bands, rejected=rejected, neighbours=neighbours, pairs=pairs, loaded=_load(inputs.images, keys)
    )


def _load(images: Images, keys: Sequence[str]) -> dict[str, np.ndarray]:
    wanted = list(dict.fromkeys(keys))
    if not wanted:
        return {}
    found = images(wanted)
    if found.ndim != 4 or len(found) != len(wanted) or found.shape[3] not in (1, 3) or found.dtype != np.uint8:
        raise ValueError(
            f"images for the report must be uint8 ({len(wanted)}, H, W, C) with C 1 or 3, one for every key, got "
            f"{found.dtype} {found.shape}."
        )
    return dict(zip(wanted, found, strict=True))


def _readme_picture(gallery: _Gallery) -> bytes:
    samplers = list(gallery.pairs[0].keys) if gallery.pairs else []
    rows = {
        sampler: np.stack([pictures.reduced(gallery.loaded[pair.keys[sampler]]) for pair in gallery.pairs])
        for sampler in samplers
    }
    return figures.readme_picture(rows, [pair.label for pair in gallery.pairs])


def _draw(inputs: ReportInputs, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The charts as safe markup: the SVG is matplotlib's, which escapes the text in it."""
    classes: list[ClassFill] = metrics["classes"]
    downstream: Downstream | None = metrics["downstream"]
    shown = sorted(classes, key=lambda fill: fill.shortfall, reverse=True)[:_MOST_CLASSES_IN_A_CHART]
    shown = [fill for fill in classes if fill in shown]
    return {
        "quota": Markup(figures.quota_chart(shown)),
        "num_classes": len(shown),
        "scores": {
            score: Markup(figures.histogram(values, score, threshold=inputs.thresholds.get(score)))
            for score, values in findings.score_columns(inputs.metadata).items()
        },
        "samplers": _draw_samplers(metrics["samplers"]),
        "groups": _draw_groups(downstream, inputs),
        "gains": _draw_gains(downstream),
    }


def _draw_samplers(samplers: Mapping[str, SamplerFindings]) -> Markup | None:
    if not samplers:
        return None
    shares = {name: [found.yield_, found.valid, found.rare, found.new] for name, found in samplers.items()}
    names = ["yield", "valid", "rare", "new"]
    axis = "% of the first round's candidates"
    return Markup(figures.share_chart(shares, names, name="samplers", axis=axis))


def _groups_shown(downstream: Downstream | None, inputs: ReportInputs) -> list[tuple[str, int]]:
    """The groups that have a chart, with their real training images; of too many, those with the fewest."""
    if downstream is None or not downstream.shown:
        return []
    rows = inputs.metadata[inputs.metadata["source"] == "real"]
    counts = rows["group"].value_counts()
    tested = [(name, int(counts.get(name, 0))) for name in downstream.arms[downstream.shown[0]].groups]
    fewest = sorted(tested, key=lambda part: part[1])[:_MOST_CLASSES_IN_A_CHART]
    return [part for part in tested if part in fewest]


def _fairness_rows(downstream: Downstream | None) -> list[tuple[str, str, str]]:
    """Title, metric and place of every row about fairness and calibration."""
    if downstream is None or not downstream.shown:
        return []
    measured = downstream.arms[downstream.shown[0]].figures
    rows = [("Calibration error", "calibration_error", "")]
    for metric, title in _FAIRNESS.items():
        rows += [
            (f"{title}: {attribute.replace('=', ' ')}", metric, attribute) for attribute in measured.get(metric, {})
        ]
    return rows


def _draw_groups(downstream: Downstream | None, inputs: ReportInputs) -> Markup | None:
    """Accuracy of every group by real only, the rival and the main arm."""
    parts = [name for name, _ in _groups_shown(downstream, inputs)]
    if downstream is None or not parts:
        return None
    return Markup(
        figures.share_chart(
            {arm: [downstream.arms[arm].groups[name] for name in parts] for arm in downstream.shown},
            parts,
            name="groups",
            axis="accuracy on the test images, %",
        )
    )


def _draw_gains(downstream: Downstream | None) -> dict[str, Markup]:
    """A chart a metric: every arm against real only."""
    if downstream is None or not downstream.gains:
        return {}
    charts: dict[str, Markup] = {}
    for metric in downstream.metrics:
        found = {arm: differences[metric] for arm, differences in downstream.gains.items()}
        rows = [(arm, Estimate(value=each.mean, low=each.low, high=each.high)) for arm, each in found.items()]
        charts[metric] = Markup(figures.difference_chart(rows, metric, names=verdict.name_of_arm))
    return charts


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": _number,
        "percent": partial(_number, scale=100, unit="%", decimals=1),
        "points": partial(_number, scale=100, decimals=1),
        "signed_points": lambda value: _number(value, scale=100, decimals=1, sign=True),
        "arm": verdict.name_of_arm,
        "macs": in_words,
        "metric": lambda metric: METRIC_PHRASES.get(metric, metric.replace("_", " ")),
        "standing": verdict.standing,
        "colour": figures.colour_of,
    }
    return environment


def _number(value: float, *, scale: float = 1, unit: str = "", decimals: int | None = None, sign: bool = False) -> str:
    """A number for people: fixed decimals where given, otherwise three significant digits."""
    if isnan(value):
        return "n/a"
    if isinf(value):
        return "no bound"
    scaled = scale * value
    if decimals is None:
        decimals = 0 if abs(scaled) >= 100 else 1 if abs(scaled) >= 10 else 2 if abs(scaled) >= 0.1 else 4
    rounded = round(scaled, decimals) + 0.0  # + 0.0 turns -0.0 into 0.0
    return f"{rounded:{'+' if sign else ''},.{decimals}f}{unit}"
