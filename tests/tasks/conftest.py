"""Inputs of a report: real digit scans with invented scores, and arms of known skill."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from datasets.runs.records import METADATA_SCHEMA
from minority.downstream.arms import arms_for
from minority.downstream.data import DownstreamData, LabelledImages
from minority.downstream.jobs import Outcome
from minority.downstream.metrics import results_table
from minority.downstream.predictions import Predictions
from minority.downstream.settings import DownstreamSettings
from minority.downstream.trials import trials_for
from tasks.report import ReportInputs
from tasks.report.verdict import ArmResults

CLASS_NAMES = [str(digit) for digit in range(10)]
REAL_COUNTS = [27, 19, 14, 10, 7, 5, 4, 3, 2, 2]
QUOTA = 27
THRESHOLDS = {"knn_distance": 39.5, "realism": 1.0, "nearest_distance": 12.0, "label_agreement": 0.45}


def make_inputs(*, candidates: int = 160, class_names: Sequence[str] = CLASS_NAMES) -> ReportInputs:
    """Inputs as a run over a long tail of digit scans gives them; candidates are other scans, some of them noisy."""
    metadata, pixels = digits_metadata(candidates=candidates, class_names=class_names)
    return ReportInputs(
        dataset="digits",
        run_id="digits-0001",
        recipe="3b34d8e1a725",
        config={"seed": 7, "guidance": {"scale": 5.0, "every": 5}, "quotas": "balanced"},
        backbone={"name": "digits-small", "sha256": "9f3c" * 16},
        class_names=list(class_names),
        metadata=metadata,
        images=loader(pixels),
        quotas=dict.fromkeys(class_names, QUOTA),
        thresholds=THRESHOLDS,
        results=make_results(seeds=5, names=class_names),
        cost_per_sample={"plain": 50.0, "minority": 60.0},
        reproduce=["make demo"],
        licence="UCI optical recognition of handwritten digits, CC BY 4.0; copied from scikit-learn.",
    )


def loader(pixels: dict[str, np.ndarray]) -> Callable[[Sequence[str]], np.ndarray]:
    return lambda keys: np.stack([pixels[key] for key in keys])


def digits_metadata(*, candidates: int, class_names: Sequence[str]) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    scans, labels = load_digits(return_X_y=True)
    chosen = np.concatenate([np.flatnonzero(labels == digit)[:count] for digit, count in enumerate(REAL_COUNTS)])
    others = np.setdiff1d(np.arange(len(scans)), chosen)
    neighbours = NearestNeighbors(n_neighbors=6).fit(scans[chosen])
    rows, pixels, room = [], {}, [QUOTA - count for count in REAL_COUNTS]
    for number, index in enumerate(chosen):
        key, label = f"real-{number:05d}", int(labels[index])
        distances = neighbours.kneighbors(scans[[index]])[0][0][1:]
        pixels[key] = as_image(scans[index])
        rows.append(
            real_row(key, label, class_names[label]) | {"source_id": f"digits/{index:05d}"} | scores(distances, rng)
        )
    for sampler, shift in (("plain", 0.0), ("minority", 5.0)):
        for number in range(candidates):
            label, later = number % 10, number >= 0.75 * candidates
            if later and sampler == "plain":
                continue  # the baseline takes part in the first round only
            pool = others[labels[others] == label]
            scan = scans[rng.choice(pool)] + shift * rng.random() * rng.normal(size=64)
            scan = np.clip(scan, 0, 16)
            distances, nearest = (found[0] for found in neighbours.kneighbors(scan[None]))
            key = f"{sampler}-{number:05d}"
            pixels[key] = as_image(scan)
            row = real_row(key, label, class_names[label]) | scores(distances, rng)
            row |= {"source": "synthetic", "sampler": sampler, "sample_index": number, "seed": 1000 + number}
            row |= {"round": int(later), "unit": f"u{number // 50:03d}", "guidance": "{}", "evaluations": 60.0}
            row |= {"nearest_source_id": f"digits/{chosen[nearest[0]]:05d}"}
            row |= verdicts(row)
            row |= fate(row, room=room)
            room[label] -= row["kept"]
            rows.append(row)
    frame = pd.DataFrame(rows, columns=METADATA_SCHEMA.names)
    return pa.Table.from_pandas(frame, schema=METADATA_SCHEMA, preserve_index=False).to_pandas(), pixels


def as_image(scan: np.ndarray) -> np.ndarray:
    return (scan.reshape(8, 8, 1) * 255 / 16).round().astype(np.uint8)


def real_row(key: str, label: int, name: str) -> dict:
    row = dict.fromkeys(METADATA_SCHEMA.names)
    row |= {"key": key, "source": "real", "sampler": "real", "label": label, "label_name": name, "group": name}
    return row | {"kept": True, "reason": "kept"}


def scores(distances: np.ndarray, rng: np.random.Generator) -> dict:
    mean = float(distances.mean())
    return {
        "minority_score": mean / 20 + 0.1 * rng.normal(),
        "negative_elbo": 1.5 + mean / 40 + 0.05 * rng.normal(),
        "knn_distance": mean,
        "nearest_distance": float(distances[0]),
        "realism": 46 / mean,
        "label_agreement": float(rng.beta(6, 2)),
    }


def verdicts(row: dict) -> dict:
    return {
        "rare": row["knn_distance"] > THRESHOLDS["knn_distance"],
        "valid": row["realism"] > THRESHOLDS["realism"],
        "new": row["nearest_distance"] > THRESHOLDS["nearest_distance"],
        "label_kept": row["label_agreement"] > THRESHOLDS["label_agreement"],
    }


def fate(row: dict, *, room: list[int]) -> dict:
    refused = [name for name in ("rare", "valid", "new", "label_kept") if not row[name]]
    if row["sampler"] == "plain":
        reason = "baseline"
    elif refused:
        reason = f"not_{refused[0]}"
    else:
        reason = "kept" if room[row["label"]] > 0 else "quota_full"
    return {"kept": reason == "kept", "reason": reason}


#: Share of the test images that every arm gets right, the rarest class last.
SKILL = {
    "real": np.linspace(0.98, 0.5, 10),
    "oversampling": np.linspace(0.97, 0.6, 10),
    "dfr": np.linspace(0.96, 0.65, 10),
    "real+plain": np.linspace(0.96, 0.7, 10),
    "real+minority": np.linspace(0.96, 0.85, 10),
    "minority first": np.linspace(0.95, 0.75, 10),
}
SETTINGS = DownstreamSettings(trials=2, tuning_seeds=1)


def make_results(*, seeds: int, arms: Sequence[str] = tuple(SKILL), names: Sequence[str] = CLASS_NAMES) -> ArmResults:
    """Results of arms that are right as often as SKILL says, on 40 test and 10 validation images of every class."""
    data = comparison_data(names)
    known = {arm.name: arm for arm in arms_for(["plain", "minority"])}
    outcome = Outcome(
        chosen={arm: trials_for(known[arm], SETTINGS)[0] for arm in arms},
        validated={arm: {10_000: make_answers(data.validation, arm, seed=99)} for arm in arms},
        tested={arm: {seed: make_answers(data.test, arm, seed=seed) for seed in range(seeds)} for arm in arms},
    )
    runs = {(arm, seed): found for arm, by_seed in outcome.tested.items() for seed, found in by_seed.items()}
    return ArmResults(outcome=outcome, data=data, settings=SETTINGS, figures=results_table(runs, data))


def comparison_data(names: Sequence[str]) -> DownstreamData:
    def part(count: int) -> LabelledImages:
        labels = np.repeat(np.arange(10), count)
        return LabelledImages(np.zeros((len(labels), 8, 8, 1), dtype=np.uint8), labels, labels)

    return DownstreamData(
        train=part(2),
        validation=part(10),
        test=part(40),
        class_names=tuple(names),
        group_names=tuple(names),
        synthetic={"plain": part(3), "minority": part(4)},
        sensitive={"writer": ["left" if i % 4 == 0 else "right" for i in range(400)]},
    )


def make_answers(truth: LabelledImages, arm: str, *, seed: int) -> Predictions:
    rng = np.random.default_rng([seed, len(truth)])  # the same luck for every arm
    right = rng.random(len(truth)) < SKILL[arm][truth.labels]
    return Predictions(np.where(right, truth.labels, (truth.labels + 1) % 10), np.full(len(truth), 0.9, np.float32))


@pytest.fixture(scope="session")
def digits_inputs():
    """Makes inputs of a report: digits_inputs(candidates=160, class_names=[...])."""
    return make_inputs


@pytest.fixture(scope="session")
def arm_results():
    """Makes results of arms: arm_results(seeds=5, arms=("real", "dfr"))."""
    return make_results


@pytest.fixture(scope="session")
def answers():
    """Makes predictions as good as an arm's: answers(truth, "dfr", seed=0)."""
    return make_answers
