"""The report, on real digit scans with invented scores."""

import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from datasets.records import METADATA_SCHEMA
from tasks.report import ReportInputs, render_report
from tasks.report.findings import share_first_round
from tasks.report.verdict import judge_results

CLASS_NAMES = [str(digit) for digit in range(10)]
REAL_COUNTS = [27, 19, 14, 10, 7, 5, 4, 3, 2, 2]
QUOTA = 27
THRESHOLDS = {"knn_distance": 39.5, "realism": 1.0, "nearest_distance": 12.0, "label_agreement": 0.45}


@pytest.fixture(scope="module")
def inputs() -> ReportInputs:
    return digits_inputs()


@pytest.fixture(scope="module")
def rendered(inputs) -> dict[str, bytes]:
    return render_report(inputs)


@pytest.fixture(scope="module")
def metrics(rendered) -> dict:
    return json.loads(rendered["metrics.json"])


def digits_inputs(*, candidates: int = 160, class_names: Sequence[str] = CLASS_NAMES) -> ReportInputs:
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
        results=downstream_results(seeds=5),
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
    row |= {"key": key, "source": "real", "sampler": "none", "label": label, "label_name": name, "group": name}
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


def downstream_results(*, seeds: int, arms: Sequence[str] = ("real", "oversampled", "real+plain", "real+minority")):
    rng = np.random.default_rng(1)
    rows = []
    for strength, arm in enumerate(arms):
        for seed in range(seeds):
            recalls = np.clip(0.98 - np.arange(10) * (0.06 - 0.01 * strength) + 0.02 * rng.normal(size=10), 0, 1)
            rows += [(arm, seed, f"recall_{label}", value) for label, value in enumerate(recalls)]
            rows += [(arm, seed, "accuracy", recalls.mean()), (arm, seed, "worst_class_accuracy", recalls.min())]
    return pd.DataFrame(rows, columns=["arm", "seed", "metric", "value"])


def html(rendered: dict[str, bytes]) -> str:
    return rendered["report.html"].decode("utf-8")


def test_the_report_is_three_files(rendered):
    assert sorted(rendered) == ["metrics.json", "report.html", "samples.png"]
    assert Image.open(io.BytesIO(rendered["samples.png"])).size[0] > 16 * 72


def test_equal_inputs_give_equal_bytes(rendered):
    assert render_report(digits_inputs()) == rendered


def test_the_order_of_metadata_rows_changes_nothing(inputs, rendered):
    shuffled = inputs.metadata.sample(frac=1, random_state=3)

    assert render_report(replace(inputs, metadata=shuffled)) == rendered


def test_the_page_refers_to_nothing_outside_itself(rendered):
    page = html(rendered)

    assert not re.search(r"https?://", page)
    assert not re.search(r"<(script|link|iframe|object|embed)\b", page)
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'src="([^"]*)"', page))
    assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)"', page))
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))


def test_ids_on_the_page_are_unique_and_references_resolve(rendered):
    ids = re.findall(r'\bid="([^"]*)"', html(rendered))

    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]*)"', html(rendered))) <= set(ids)
    assert set(re.findall(r"url\(#([^)]*)\)", html(rendered))) <= set(ids)


def test_every_image_has_an_alternative_text_and_every_table_headers(rendered):
    page = html(rendered)

    assert all(re.search(r'alt="[^"]{10,}"', image) for image in re.findall(r"<img[^>]*>", page))
    assert all(
        'scope="col"' in table and 'scope="row"' in table for table in re.findall(r"(?s)<table.*?</table>", page)
    )


def test_yields_are_counted_over_the_first_round_only(inputs, metrics):
    rows = inputs.metadata
    for sampler, cost in inputs.cost_per_sample.items():
        first = rows[(rows["sampler"] == sampler) & (rows["round"] == 0)]
        count, total = int((first["rare"] & first["valid"] & first["new"]).sum()), len(first)

        found = metrics["samplers"][sampler]

        assert (found["yield"]["count"], found["yield"]["total"]) == (count, total)
        assert found["cost_per_kept_sample"]["value"] == pytest.approx(cost / (count / total))
    assert metrics["samplers"]["minority"]["candidates"] == 120
    assert metrics["ratios"]["cost_per_sample"] == pytest.approx(1.2)


def test_intervals_are_wilsons(metrics):
    found = metrics["samplers"]["minority"]["yield"]

    oracle = stats.binomtest(found["count"], found["total"]).proportion_ci(0.95, method="wilson")

    assert (found["low"], found["high"]) == pytest.approx((oracle.low, oracle.high))


def test_the_ratio_of_yields_has_its_log_interval(metrics):
    plain, minority = (metrics["samplers"][name]["yield"] for name in ("plain", "minority"))
    oracle = stats.contingency.relative_risk(minority["count"], minority["total"], plain["count"], plain["total"])

    found = metrics["ratios"]["yield"]

    assert found["value"] == pytest.approx(oracle.relative_risk)
    interval = oracle.confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))


def test_class_fill_agrees_with_a_count_by_hand(inputs, metrics, rendered):
    rows = inputs.metadata
    for digit, fill in enumerate(metrics["classes"]):
        drawn = rows[(rows["sampler"] == "minority") & (rows["label"] == digit)]
        kept = int(drawn["kept"].sum())

        assert (fill["real"], fill["kept"]) == (REAL_COUNTS[digit], kept)
        assert fill["shortfall"] == max(0, QUOTA - REAL_COUNTS[digit] - kept)
        assert fill["candidates"] == [int((drawn["round"] == number).sum()) for number in (0, 1)]
    unfilled = sum(fill["shortfall"] > 0 for fill in metrics["classes"])
    assert f"{unfilled} of 10 quotas were not filled." in html(rendered)


def test_paired_differences_agree_with_a_t_test(inputs, metrics):
    worst = inputs.results[inputs.results["metric"] == "worst_class_accuracy"].pivot(
        index="seed", columns="arm", values="value"
    )
    oracle = stats.ttest_rel(worst["real+minority"], worst["real"]).confidence_interval(0.95)

    found = metrics["downstream"]["comparisons"][1]

    assert (found["difference"]["arm"], found["difference"]["baseline"]) == ("real+minority", "real")
    assert found["difference"]["metric"] == "worst_class_accuracy"
    assert (found["difference"]["low"], found["difference"]["high"]) == pytest.approx((oracle.low, oracle.high))
    assert found["standing"] == "ahead"


def test_the_verdict_names_real_only_and_the_strongest_other_arm(metrics):
    assert "worst-class accuracy" in metrics["verdict"]
    assert "against real only" in metrics["verdict"]
    assert "against real+plain" in metrics["verdict"]


def test_the_verdict_says_when_an_interval_includes_zero(inputs):
    results = inputs.results.copy()
    plain = results["arm"] == "real+plain"
    noise = np.where(results.loc[plain, "seed"] % 2 == 0, 0.05, -0.05)
    results.loc[plain, "value"] = results.loc[results["arm"] == "real+minority", "value"].to_numpy() + noise

    rendered = render_report(replace(inputs, results=results))

    assert "does not exclude 0" in json.loads(rendered["metrics.json"])["verdict"]
    assert "not distinguishable" in html(rendered)


def test_reasons_are_counted_over_all_rounds(inputs, metrics):
    rows = inputs.metadata
    for sampler in ("plain", "minority"):
        expected = rows.loc[rows["sampler"] == sampler, "reason"].value_counts().to_dict()
        assert metrics["reasons"][sampler] == expected


def test_hostile_names_are_text_and_nothing_else():
    hostile = ["<script>alert(1)</script>", '"><img src=x>', "$\\frac{", "a&b", "\u5c11\u6570", *"56789"]

    page = html(render_report(digits_inputs(class_names=hostile, candidates=60)))

    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_images_are_loaded_in_one_call_of_bounded_size(inputs):
    calls = []

    def counted(keys: Sequence[str]) -> np.ndarray:
        calls.append(len(keys))
        return inputs.images(keys)

    render_report(replace(inputs, images=counted))

    assert len(calls) == 1
    assert calls[0] < 500


def test_a_large_run_is_sampled_not_decoded(inputs):
    copies = [
        inputs.metadata.assign(key=inputs.metadata["key"] + f"-{number}", seed=inputs.metadata["seed"] + 1000 * number)
        for number in range(140)
    ]
    metadata = pd.concat(copies, ignore_index=True)
    assert len(metadata) > 50_000
    calls = []

    def counted(keys: Sequence[str]) -> np.ndarray:
        calls.append(len(keys))
        return inputs.images([key.rsplit("-", 1)[0] for key in keys])

    rendered = render_report(replace(inputs, metadata=metadata, images=counted))

    assert calls[0] < 500
    assert len(rendered["report.html"]) < 2_000_000


def without(inputs: ReportInputs, sampler: str) -> ReportInputs:
    return replace(inputs, metadata=inputs.metadata[inputs.metadata["sampler"] != sampler])


def test_without_a_baseline_the_page_says_so_and_compares_nothing(inputs):
    rendered = render_report(without(inputs, "plain"))

    found = json.loads(rendered["metrics.json"])
    assert found["ratios"] is None
    assert list(found["samplers"]) == ["minority"]
    assert "No plain baseline was drawn" in html(rendered)


def test_without_downstream_results_the_verdict_is_about_the_yield(inputs):
    rendered = render_report(replace(inputs, results=None))

    found = json.loads(rendered["metrics.json"])
    assert found["downstream"] is None
    assert "times the share of plain sampling" in found["verdict"]
    assert "was not measured" in found["verdict"]
    assert "No classifier was trained" in html(rendered)


def test_one_seed_gives_no_interval_and_no_claim(inputs):
    rendered = render_report(replace(inputs, results=downstream_results(seeds=1)))

    found = json.loads(rendered["metrics.json"])
    assert "one seed, so no interval" in found["verdict"]
    assert {each["standing"] for each in found["downstream"]["comparisons"]} == {"one seed, no interval"}
    assert found["downstream"]["means"]["real"]["accuracy"]["low"] is None
    assert "One seed gives no interval" in html(rendered)


@pytest.mark.parametrize("arms", [("real",), ("real", "real+minority"), ("oversampled", "real+plain")])
def test_missing_arms_are_left_out(arms):
    found = judge_results(downstream_results(seeds=3, arms=arms))

    assert found is not None
    assert found.arms == arms
    assert len(found.comparisons) == (2 if arms == ("real", "real+minority") else 0)


def test_results_without_the_main_arm_make_a_report(inputs):
    rendered = render_report(replace(inputs, results=downstream_results(seeds=3, arms=("real", "oversampled"))))

    assert "was not measured" in json.loads(rendered["metrics.json"])["verdict"]
    assert "real oversampled" in html(rendered)


def test_a_run_that_kept_nothing_is_reported_as_such(inputs):
    drawn = inputs.metadata["sampler"] != "none"
    metadata = inputs.metadata.copy()
    metadata.loc[drawn, ["kept", "rare"]] = False
    metadata.loc[drawn, "reason"] = "not_rare"

    rendered = render_report(replace(inputs, metadata=metadata))

    found = json.loads(rendered["metrics.json"])
    assert found["samplers"]["minority"]["yield"]["value"] == 0
    assert found["samplers"]["minority"]["cost_per_kept_sample"]["value"] is None
    assert found["ratios"]["yield"]["value"] is None
    assert [fill["kept"] for fill in found["classes"]] == [0] * 10
    assert "No kept sample with a known nearest training image." in html(rendered)


def test_real_images_alone_make_a_report(inputs):
    rendered = render_report(without(without(inputs, "plain"), "minority"))

    assert "there is nothing to compare" in html(rendered)
    assert json.loads(rendered["metrics.json"])["samplers"] == {}
    assert Image.open(io.BytesIO(rendered["samples.png"])).format == "PNG"


def test_a_class_with_nothing_has_a_row_of_zeros(inputs):
    metadata = inputs.metadata[inputs.metadata["label"] != 9]

    rendered = render_report(replace(inputs, metadata=metadata))

    expected = {"name": "9", "real": 0, "kept": 0, "quota": QUOTA, "shortfall": QUOTA, "candidates": [0, 0]}
    assert json.loads(rendered["metrics.json"])["classes"][9] == expected
    assert f"9 lacks {QUOTA} of {QUOTA}" in html(rendered)


def test_missing_scores_are_counted_and_left_out_of_the_charts(inputs):
    metadata = inputs.metadata.copy()
    metadata.loc[metadata["sampler"] == "plain", "negative_elbo"] = np.nan
    minority = metadata.index[metadata["sampler"] == "minority"]
    metadata.loc[minority[:30], "minority_score"] = np.nan
    metadata.loc[minority[30], "minority_score"] = np.inf
    metadata["realism"] = np.nan

    scored = json.loads(render_report(replace(inputs, metadata=metadata))["metrics.json"])["scores"]

    assert sorted(scored["negative_elbo"]) == ["minority", "real"]
    assert (scored["minority_score"]["minority"]["missing"], scored["minority_score"]["minority"]["count"]) == (31, 129)
    assert "realism" not in scored


@pytest.mark.parametrize("shape", [(64, 64, 3), (160, 256, 3)])
def test_larger_and_coloured_images_are_shown(inputs, shape):
    def coloured(keys: Sequence[str]) -> np.ndarray:
        return np.stack([np.random.default_rng(len(key)).integers(0, 256, shape, dtype=np.uint8) for key in keys])

    rendered = render_report(replace(inputs, images=coloured))

    assert Image.open(io.BytesIO(rendered["samples.png"])).size[0] < 2000
    assert html(rendered).count("data:image/png") > 40


def test_samplers_with_other_seeds_are_not_said_to_share_them(inputs):
    metadata = inputs.metadata.copy()
    metadata.loc[metadata["sampler"] == "plain", "seed"] += 1

    assert share_first_round(inputs.metadata)
    assert not share_first_round(metadata)
    assert "were not given the same labels and seeds" in html(render_report(replace(inputs, metadata=metadata)))


def test_a_quota_without_a_class_is_refused(inputs):
    with pytest.raises(ValueError, match=r"quotas name \['cat'\], which are no classes"):
        render_report(replace(inputs, quotas={"cat": 3}))


def test_images_of_a_wrong_shape_are_refused(inputs):
    with pytest.raises(ValueError, match=r"images for the report must be uint8"):
        render_report(replace(inputs, images=lambda keys: np.zeros((len(keys), 8, 8), dtype=np.uint8)))
