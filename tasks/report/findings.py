"""The numbers of a report, computed from the metadata table.

Samplers are compared over the first round only: there plain and minority were given the same labels and seeds. Later
rounds ask for what was still missing, so their labels depend on what the sampler had failed to make.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import exp, inf, isfinite, log, nan, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from tasks.augment.group_gate import GroupGate

SAMPLERS = ("plain", "minority")
FILTERS = ("rare", "valid", "new")
SCORES = (
    "minority_score",
    "negative_elbo",
    "knn_distance",
    "nearest_distance",
    "realism",
    "label_agreement",
    "labeller_confidence",
)
CONFIDENCE = 0.95
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its 95 % interval; NaN where it is unknown, infinity where it is unbounded."""

    value: float
    low: float = nan
    high: float = nan


@dataclass(frozen=True, kw_only=True)
class Proportion(Estimate):
    """A share in [0, 1] with the counts it comes from."""

    count: int
    total: int


@dataclass(frozen=True, kw_only=True)
class SamplerFindings:
    """What one sampler's first round gave.

    Attributes:
        candidates: Images made in the first round, where both samplers drew: those of the same seeds.
        yield_: Share that is rare and valid and new.
        rare: Share that is rare.
        valid: Share that is valid.
        new: Share that is new.
        cost_per_sample: Denoiser evaluations an image.
        cost_per_kept_sample: Denoiser evaluations a rare, valid and new image: cost_per_sample / yield.
    """

    candidates: int
    yield_: Proportion
    rare: Proportion
    valid: Proportion
    new: Proportion
    cost_per_sample: float
    cost_per_kept_sample: Estimate


@dataclass(frozen=True, kw_only=True)
class Ratios:
    """Minority relative to plain; 1 = no difference."""

    yield_: Estimate
    cost_per_sample: float
    cost_per_kept_sample: Estimate


@dataclass(frozen=True, kw_only=True)
class ClassFill:
    """How far the quota of one class was filled.

    Attributes:
        name: The class.
        real: Real images of it.
        kept: Minority samples of it that were kept.
        quota: Images wanted, real and synthetic together.
        shortfall: Images that are missing; 0 where the quota is filled.
        candidates: Minority samples drawn, by round.
    """

    name: str
    real: int
    kept: int
    quota: int
    shortfall: int
    candidates: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class GateFinding:
    """What a group with few or no real images got.

    Attributes:
        real: Real images of it.
        candidates: Samples of the first round, by which the gate decides.
        shows_attributes: Share of them that show every attribute value, by classifiers of the training images.
        shows_label: Share of them that show the label.
        kept: Samples in the published set.
        is_open: Whether the gate lets it through.
        advice: What to do, in a sentence.
    """

    real: int
    candidates: int
    shows_attributes: Proportion
    shows_label: Proportion
    kept: int
    is_open: bool
    advice: str


def wilson(count: int, *, total: int) -> Proportion:
    """Share with Wilson's score interval (Wilson 1927) at 95 %; all NaN where total is 0.

    Args:
        count: Hits, in [0, total].
        total: Trials, at least 0.
    """
    if total == 0:
        return Proportion(value=nan, low=nan, high=nan, count=0, total=0)
    share = count / total
    centre = (share + Z**2 / (2 * total)) / (1 + Z**2 / total)
    reach = Z * sqrt(share * (1 - share) / total + Z**2 / (4 * total**2)) / (1 + Z**2 / total)
    low = 0.0 if count == 0 else max(0.0, centre - reach)
    high = 1.0 if count == total else min(1.0, centre + reach)
    return Proportion(value=share, low=low, high=high, count=count, total=total)


def ratio_of_shares(treated: Proportion, control: Proportion) -> Estimate:
    """Treated / control with the log interval of Katz et al. (1978); NaN where a count is 0.

    The interval treats the two as independent. They share seeds, which can only make it wider than need be where
    the outcomes go together.
    """
    if treated.total == 0 or control.total == 0 or control.count == 0:
        return Estimate(value=nan)
    ratio = treated.value / control.value
    if treated.count == 0:
        return Estimate(value=0.0)
    reach = Z * sqrt(1 / treated.count - 1 / treated.total + 1 / control.count - 1 / control.total)
    return Estimate(value=ratio, low=exp(log(ratio) - reach), high=exp(log(ratio) + reach))


def passes(rows: pd.DataFrame, column: str) -> np.ndarray:
    """(N,) bool: the filter's verdict, False where it is null."""
    return rows[column].astype("boolean").fillna(False).to_numpy(dtype=bool)


def is_good(rows: pd.DataFrame) -> np.ndarray:
    """(N,) bool: rare and valid and new."""
    good: np.ndarray = np.logical_and.reduce([passes(rows, column) for column in FILTERS])
    return good


def drawn_by(metadata: pd.DataFrame, sampler: str, *, first_round: bool = False) -> pd.DataFrame:
    """Candidates of one sampler, in order of label, sample index and key.

    Args:
        metadata: Rows as in datasets.runs.records.
        sampler: "plain" or "minority".
        first_round: Only the candidates of round 0.
    """
    rows = metadata[metadata["sampler"] == sampler]
    if first_round:
        rows = rows[rows["round"] == 0]
    return rows.sort_values(["label", "sample_index", "key"], kind="stable")


def compared_rows(metadata: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The candidates over which samplers are compared: of the first round, and where both have some, those sample
    indices that both drew, since only there noise and label are the same.
    """
    rows = {sampler: drawn_by(metadata, sampler, first_round=True) for sampler in SAMPLERS}
    if any(part.empty for part in rows.values()):
        return rows
    shared = set.intersection(*(set(part["sample_index"]) for part in rows.values()))
    return {sampler: part[part["sample_index"].isin(shared)] for sampler, part in rows.items()} if shared else rows


def evaluate_samplers(metadata: pd.DataFrame, cost_per_sample: Mapping[str, float]) -> dict[str, SamplerFindings]:
    """Yield, filters' shares and cost of every sampler, over the candidates that are compared."""
    findings = {}
    for sampler, rows in compared_rows(metadata).items():
        if rows.empty:
            continue
        total, cost = len(rows), float(cost_per_sample.get(sampler, nan))
        good = wilson(int(is_good(rows).sum()), total=total)
        shares = {column: wilson(int(passes(rows, column).sum()), total=total) for column in FILTERS}
        findings[sampler] = SamplerFindings(
            candidates=total,
            yield_=good,
            cost_per_sample=cost,
            # The dearest end of the cost belongs to the lowest end of the yield.
            cost_per_kept_sample=Estimate(
                value=_cost(cost, good.value), low=_cost(cost, good.high), high=_cost(cost, good.low)
            ),
            **shares,
        )
    return findings


def compare_samplers(findings: Mapping[str, SamplerFindings]) -> Ratios | None:
    """Minority relative to plain, or None where either is missing."""
    if not all(sampler in findings for sampler in SAMPLERS):
        return None
    plain, minority = (findings[sampler] for sampler in SAMPLERS)
    gain = ratio_of_shares(minority.yield_, plain.yield_)
    cost = minority.cost_per_sample / plain.cost_per_sample if plain.cost_per_sample > 0 else nan
    kept = Estimate(value=_cost(cost, gain.value), low=_cost(cost, gain.high), high=_cost(cost, gain.low))
    return Ratios(yield_=gain, cost_per_sample=cost, cost_per_kept_sample=kept)


def share_first_round(metadata: pd.DataFrame) -> bool:
    """Whether the candidates that are compared were given the same labels and seeds."""
    plain, minority = (
        rows[["label", "seed"]].astype("int64").value_counts().to_dict() for rows in compared_rows(metadata).values()
    )
    return bool(plain == minority)


def fill_of_classes(
    metadata: pd.DataFrame, class_names: Sequence[str], *, quotas: Mapping[str, int]
) -> list[ClassFill]:
    """Real and kept images, quota and candidates of every class, in the order of `class_names`.

    Raises:
        ValueError: Where a quota names no class.
    """
    strangers = sorted(set(quotas) - set(class_names))
    if strangers:
        raise ValueError(f"quotas name {strangers}, which are no classes; the classes are {list(class_names)}.")
    drawn = drawn_by(metadata, "minority")
    rounds = range(0 if drawn.empty else int(drawn["round"].max()) + 1)
    real = metadata.loc[metadata["source"] == "real", "label_name"].value_counts()
    kept = drawn.loc[passes(drawn, "kept"), "label_name"].value_counts()
    candidates = drawn.groupby(["label_name", "round"]).size()
    fills = []
    for name in class_names:
        num_real, num_kept, quota = int(real.get(name, 0)), int(kept.get(name, 0)), int(quotas.get(name, 0))
        fills.append(
            ClassFill(
                name=name,
                real=num_real,
                kept=num_kept,
                quota=quota,
                shortfall=max(0, quota - num_real - num_kept),
                candidates=tuple(int(candidates.get((name, number), 0)) for number in rounds),
            )
        )
    return fills


def describe_gate(gate: GroupGate, metadata: pd.DataFrame) -> GateFinding:
    """What a group with few or no real images got."""
    drawn = drawn_by(metadata, "minority")
    return GateFinding(
        real=gate.real,
        candidates=gate.candidates,
        shows_attributes=wilson(round(gate.shows_attributes * gate.candidates), total=gate.candidates),
        shows_label=wilson(round(gate.shows_label * gate.candidates), total=gate.candidates),
        kept=int((passes(drawn, "kept") & (drawn["group"] == gate.group)).sum()),
        is_open=gate.is_open,
        advice=gate.advice,
    )


def count_reasons(metadata: pd.DataFrame) -> dict[str, int]:
    """Minority candidates of all rounds that were not kept, by the filter that refused them, the commonest first.

    Nobody chose among the baseline, so that it was refused for no reason.
    """
    drawn = drawn_by(metadata, "minority")
    counts = drawn.loc[~passes(drawn, "kept"), "reason"].value_counts().sort_index()
    return {str(k): int(v) for k, v in counts.sort_values(ascending=False, kind="stable").items()}


def count_fates(metadata: pd.DataFrame) -> dict[str, int]:
    """How many minority candidates were drawn, kept and refused in all rounds."""
    kept = passes(drawn_by(metadata, "minority"), "kept")
    return {"drawn": len(kept), "kept": int(kept.sum()), "refused": int((~kept).sum())}


def score_columns(metadata: pd.DataFrame) -> dict[str, dict[str, np.ndarray]]:
    """Values of every score by population ("real", "plain", "minority"); NaN and infinities are left in.

    A score or population without a single finite value is left out.
    """
    populations = {"real": metadata[metadata["source"] == "real"]}
    populations |= {sampler: drawn_by(metadata, sampler) for sampler in SAMPLERS}
    columns: dict[str, dict[str, np.ndarray]] = {}
    for score in SCORES:
        for population, rows in populations.items():
            values = pd.to_numeric(rows[score]).to_numpy(dtype=np.float64, na_value=nan)
            if np.isfinite(values).any():
                columns.setdefault(score, {})[population] = values
    return columns


def summarise_scores(columns: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, dict[str, dict[str, float]]]:
    """Count, missing values, 5 %, 50 % and 95 % quantile of every score in every population."""
    return {
        score: {population: _quantiles(values) for population, values in populations.items()}
        for score, populations in columns.items()
    }


def as_json(findings: Mapping[str, object]) -> bytes:
    """The findings as indented JSON with sorted keys; what is unknown or unbounded is null."""
    return (json.dumps(_plain(findings), indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def _quantiles(values: np.ndarray) -> dict[str, float]:
    finite = values[np.isfinite(values)]
    low, median, high = np.quantile(finite, [0.05, 0.5, 0.95]).tolist()
    return {"count": len(finite), "missing": len(values) - len(finite), "p05": low, "p50": median, "p95": high}


def _cost(cost: float, share: float) -> float:
    if share == 0:
        return inf if cost > 0 else nan
    return cost / share


def _plain(value: Any) -> Any:
    """Reduce dataclasses, mappings, sequences and numpy scalars to what JSON knows."""
    if hasattr(value, "__dataclass_fields__"):
        return _plain({name.rstrip("_"): field for name, field in asdict(value).items()})
    if isinstance(value, Mapping):
        return {str(name).rstrip("_"): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not isfinite(value):
        return None
    return value
