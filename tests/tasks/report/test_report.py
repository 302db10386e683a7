"""The report, on real digit scans with invented scores."""

import base64
import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import stats

from minority.downstream.comparison import paired_difference
from minority.neighbours.index import Accuracy
from tasks.report import ReportInputs, render_report
from tasks.report.findings import share_first_round
from tasks.report.verdict import evaluate_results, pronounce, standing


@pytest.fixture(scope="module")
def inputs(digits_inputs) -> ReportInputs:
    return digits_inputs()


@pytest.fixture(scope="module")
def rendered(inputs) -> dict[str, bytes]:
    return render_report(inputs)


@pytest.fixture(scope="module")
def metrics(rendered) -> dict:
    return json.loads(rendered["metrics.json"])


def html(rendered: dict[str, bytes]) -> str:
    return rendered["report.html"].decode("utf-8")


def test_the_report_is_three_files(rendered):
    assert sorted(rendered) == ["metrics.json", "report.html", "samples.png"]
    assert Image.open(io.BytesIO(rendered["samples.png"])).size[0] > 16 * 72


def test_equal_inputs_give_equal_bytes(rendered, digits_inputs):
    assert render_report(digits_inputs()) == rendered


def test_the_order_of_metadata_rows_changes_nothing(inputs, rendered):
    shuffled = inputs.metadata.sample(frac=1, random_state=3)

    assert render_report(replace(inputs, metadata=shuffled)) == rendered


def test_the_page_refers_to_nothing_outside_itself(rendered):
    page = html(rendered)

    assert not re.search(r"https?://", page)
    assert not re.search(r"<(link|iframe|object|embed)\b", page)
    (script,) = re.findall(r"(?s)<script>(.*?)</script>", page)
    assert page.count("<script") == 1
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
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

        real = int(((rows["source"] == "real") & (rows["label"] == digit)).sum())
        assert (fill["real"], fill["kept"]) == (real, kept)
        assert fill["shortfall"] == max(0, inputs.quotas[str(digit)] - real - kept)
        assert fill["candidates"] == [int((drawn["round"] == number).sum()) for number in (0, 1)]
    unfilled = sum(fill["shortfall"] > 0 for fill in metrics["classes"])
    assert f"{unfilled} of 10 quotas were not filled." in html(rendered)


def test_gains_are_those_of_the_library_and_near_a_t_test(inputs, metrics):
    results = inputs.results
    runs, truth = results.outcome.tested, results.data.test

    found = metrics["downstream"]["gains"]["real+minority"]["balanced_accuracy"]

    oracle = paired_difference(runs, "real+minority", baseline="real", truth=truth, metric="balanced_accuracy")
    assert (found["mean"], found["low"], found["high"]) == (oracle.mean, oracle.low, oracle.high)
    evaluated, control = (
        [(p.predicted == truth.labels).mean() for p in runs[arm].values()] for arm in ("real+minority", "real")
    )
    assert found["mean"] == pytest.approx(np.mean(evaluated) - np.mean(control))
    assert found["low"] < stats.ttest_rel(evaluated, control).confidence_interval(0.95).low + 0.03


def test_the_verdict_compares_the_chosen_arm_with_real_only_and_the_chosen_rival(metrics):
    found = metrics["downstream"]

    # As validation has it: the best with samples of the published set, and the best without any.
    assert (found["main"], found["rival"]) == ("real+minority", "dfr")
    first, second = (found["pairwise"][arm]["worst_class_accuracy"] for arm in ("real", "dfr"))
    assert metrics["verdict"] == (
        f"real + minority: {100 * first['mean']:+.1f} points worst-class accuracy "
        f"({100 * first['low']:.1f} ... {100 * first['high']:.1f}) against real only; "
        f"{100 * second['mean']:+.1f} ({100 * second['low']:.1f} ... {100 * second['high']:.1f}) against DFR: worth it."
    )


def said_of(results) -> str:
    return pronounce(evaluate_results(results), {}, ratios=None)


def test_where_no_other_recipe_is_better_than_real_only_the_verdict_says_so(arm_results):
    verdict = said_of(arm_results(seeds=5, arms=("real", "real+minority")))

    assert verdict.endswith("no other recipe without synthetic images was better on validation: worth it.")


def test_without_the_published_images_another_source_is_evaluated(arm_results):
    verdict = said_of(arm_results(seeds=5, arms=("real", "dfr", "real+plain")))

    assert verdict.startswith("real + plain: +")
    assert "against DFR" in verdict


def test_an_interval_that_includes_zero_is_not_worth_it(arm_results, answers):
    results = arm_results(seeds=4, arms=("real", "dfr", "real+minority"))
    for seed in results.outcome.tested["dfr"]:
        # As good as the main arm, seed by seed a little better or worse.
        results.outcome.tested["dfr"][seed] = answers(results.data.test, "real+minority", seed=seed + 50)

    assert said_of(results).endswith("against DFR, an interval that does not exclude 0: not worth it.")
    assert standing(evaluate_results(results).headline[1]) == "not distinguishable"


def test_harm_is_called_harm(arm_results):
    results = arm_results(seeds=4, arms=("real", "real+minority"))
    results.outcome.tested.update(zip(("real+minority", "real"), [*results.outcome.tested.values()], strict=True))

    assert said_of(results).endswith(": they do harm.")


def test_groups_are_shown_with_their_real_images_and_fairness_by_attribute(inputs, rendered):
    page = html(rendered)

    assert re.search(r"(?s)Accuracy of every group.*?>0<span class=.ci.>27&nbsp;real", page)
    for title in ("Calibration error", "Demographic parity difference: writer", "Equalised odds ratio: writer"):
        assert title in page


def test_few_validation_images_are_warned_of(inputs, rendered, answers):
    data = inputs.results.data
    few = data.validation.subset(np.arange(0, 100, 10))
    outcome = inputs.results.outcome
    validated = {arm: {10_000: answers(few, arm, seed=99)} for arm in outcome.validated}
    results = replace(inputs.results, data=replace(data, validation=few), outcome=replace(outcome, validated=validated))

    assert "Few validation images" not in html(rendered)
    assert "Few validation images" in html(render_report(replace(inputs, results=results)))


def test_reasons_are_counted_over_all_rounds_and_being_kept_or_a_baseline_is_none(inputs, metrics, rendered):
    drawn = inputs.metadata[inputs.metadata["sampler"] == "minority"]
    refused = drawn[~drawn["kept"]]

    assert metrics["reasons"] == refused["reason"].value_counts().to_dict()
    assert metrics["fates"] == {"drawn": 160, "kept": int(drawn["kept"].sum()), "refused": len(refused)}
    section = re.search(r'(?s)<section id="reasons">.*?</section>', html(rendered))[0]
    assert re.findall(r'<th scope="row">(?:<b>)?([^<]*)', section) == [
        *(
            reason.replace("_", " ")
            for reason in sorted(metrics["reasons"], key=lambda each: -metrics["reasons"][each])
        ),
        "all refused",
        "all kept",
        "all drawn",
    ]


def test_every_chart_table_and_block_of_images_names_its_command(inputs):
    commands = ["minority augment digits --set seed=7", "minority downstream digits"]

    page = html(render_report(replace(inputs, reproduce=commands)))

    sections = dict(re.findall(r'(?s)<section id="(\w+)">(.*?)</section>', page))
    for name in ("samplers", "quotas", "images", "scores", "reasons"):
        assert re.search(
            r'class="note made">Made by <code>minority augment digits --set seed=7</code></p>', sections[name]
        )
        assert "minority downstream" not in sections[name]
    assert 'class="note made">Made by <code>minority downstream digits</code></p>' in sections["downstream"]
    assert all(
        'class="note made"' in section for section in sections.values() if "<svg" in section or "<img" in section
    )


def test_hostile_names_are_text_and_nothing_else(digits_inputs):
    hostile = ["<script>alert(1)</script>", '"><img src=x>', "$\\frac{", "a&b", "\u5c11\u6570", *"56789"]

    page = html(render_report(digits_inputs(class_names=hostile, candidates=60)))

    assert page.count("<script") == 1  # the page's own
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


def test_one_seed_gives_no_interval_and_no_claim(inputs, arm_results):
    rendered = render_report(replace(inputs, results=arm_results(seeds=1)))

    found = json.loads(rendered["metrics.json"])
    assert "one seed, so no interval" in found["verdict"]
    assert found["verdict"].endswith("one seed decides nothing.")
    assert found["downstream"]["arms"]["real"]["means"]["accuracy"]["low"] is None
    assert "one seed, no interval" in html(rendered)
    assert "One seed gives no interval" in html(rendered)


@pytest.mark.parametrize("arms", [("real",), ("real", "real+minority"), ("oversampling", "real+plain")])
def test_missing_arms_are_left_out(arms, arm_results):
    found = evaluate_results(arm_results(seeds=3, arms=arms))

    assert found is not None
    assert tuple(found.arms) == arms
    assert list(found.gains) == [arm for arm in arms if arm != "real" and "real" in arms]
    assert list(found.pairwise) == [arm for arm in arms if "+" not in arm and len(arms) > 1]


def test_results_without_synthetic_images_make_a_report(inputs, arm_results):
    rendered = render_report(replace(inputs, results=arm_results(seeds=3, arms=("real", "oversampling"))))

    assert "was not measured" in json.loads(rendered["metrics.json"])["verdict"]
    assert "real oversampled" in html(rendered)


def test_a_run_that_kept_nothing_is_reported_as_such(inputs):
    drawn = inputs.metadata["sampler"] != "real"
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

    quota = inputs.quotas["9"]
    expected = {"name": "9", "real": 0, "kept": 0, "quota": quota, "shortfall": quota, "candidates": [0, 0]}
    assert json.loads(rendered["metrics.json"])["classes"][9] == expected
    assert f"9 lacks {quota} of {quota}" in html(rendered)


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


def test_how_well_neighbours_of_a_large_set_were_found_is_told_and_nothing_where_they_are_exact(inputs, metrics):
    found = Accuracy(recall=0.9912, rare_recall=0.985, overestimate=0.0012, worst=0.031, sample=512)

    told = render_report(replace(inputs, neighbours=found))
    exact = render_report(replace(inputs, neighbours=Accuracy()))

    assert "99.1 % of the nearest real images are found (98.5 % of those of the rarest tenth)" in html(told)
    assert "too large by 0.12 % on average and 3.1 % at most" in html(told)
    assert json.loads(told["metrics.json"])["neighbours"]["worst"] == 0.031
    assert "looked up in a graph" not in html(exact)
    assert json.loads(exact["metrics.json"]) == metrics
