"""The cost benchmark runs from the command line on the digits preset and prints one row an arm."""

import json
import sys
from dataclasses import replace

import pytest

from benchmarks import cost
from benchmarks.cost import Spent, rows_of


def test_every_arm_is_drawn_evaluated_and_costed(monkeypatch, capsys, tmp_path):
    store, out = tmp_path / "store", tmp_path / "out"
    command = f"cost --num 12 --batch-size 6 --chain 6 --tuning 0 --store {store} --out {out}"
    arms = "--set sampler.steps=6 --arm fast solver=dpm_solver steps=logsnr3 boost_and_skip.boost=1.2"
    arms += " --arm pruned steps=6 prune_and_branch.weight_by=features"
    monkeypatch.setattr(sys, "argv", f"{command} {arms}".split())

    cost.main()

    rows = {row["sampler"]: row for row in json.loads((out / "cost.json").read_text())["rows"]}
    assert list(rows) == ["published", "plain", "preset", "fast", "pruned"]
    assert {row["samples"] for row in rows.values()} == {12}
    # Published: steps 0 and 5 are guided: three forward passes and a backward pass that counts as two.
    assert [rows[name]["evaluations a sample"] for name in ("published", "plain", "fast", "pruned")] == [
        6 + 2 * 4,
        6,
        3,
        6,
    ]
    assert (out / "cost.md").read_text().strip() in capsys.readouterr().out


def test_copies_make_the_interval_of_a_ratio_wider():
    plain = Spent(samples=400, kept=80, evaluations=4000.0, seconds=40.0)
    alone = Spent(samples=400, kept=160, evaluations=4000.0, seconds=40.0)
    branched = replace(alone, copies=300)

    rows = rows_of({"published": plain, "plain": plain, "alone": alone, "branched": branched}, scoring=14)

    ratios = [row["evaluations: plain / this"] for row in rows[2:]]
    points, widths = zip(*(_point_and_width(ratio) for ratio in ratios), strict=True)
    assert points[0] == points[1]
    assert widths[1] > 1.2 * widths[0]


def _point_and_width(ratio):
    point, low, _, high = ratio.replace("(", "").replace(")", "").split()
    return float(point), float(high) - float(low)


def test_what_a_kept_sample_costs_counts_every_candidate_and_its_scores():
    published = Spent(samples=100, kept=10, valid=90, evaluations=9000.0, seconds=90.0, scoring_seconds=10.0)
    plain = Spent(samples=100, kept=5, valid=95, evaluations=5000.0, seconds=50.0)
    ours = Spent(samples=100, kept=50, valid=80, evaluations=1000.0, seconds=10.0, scoring_seconds=5.0)

    rows = {row["sampler"]: row for row in rows_of({"published": published, "plain": plain, "x": ours}, scoring=14)}

    assert rows["published"]["evaluations a kept one"] == (9000 + 140) / 10
    assert rows["published"]["seconds a kept one"] == 10.0
    assert rows["x"]["evaluations a kept one"] == (1000 + 700) / 50
    ratio = float(rows["x"]["evaluations: published / this"].split()[0])
    assert ratio == pytest.approx(914 / 34, abs=0.05)
    scored = float(rows["x"]["evaluations, all scored: plain / this"].split()[0])
    assert scored == pytest.approx((5000 + 1400) / 5 / ((1000 + 1400) / 50), abs=0.05)
