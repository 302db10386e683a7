"""The study goes through the flows: what its table says of a run is what the run's own comparison says."""

import json

import pandas as pd
import pytest

from benchmarks.study import StudySettings, markdown, run
from tasks.report.verdict import PUBLISHED_SOURCE

pytestmark = pytest.mark.system


def test_the_study_says_of_each_sampler_what_its_own_run_says(prefect_api, tiny_overrides, tmp_path):
    settings = StudySettings(
        preset="digits",
        samplers=("ancestral", "boost-and-skip"),
        policies=("all", "clean"),
        recipes=("real+SOURCE", "SOURCE first"),
        candidates=2,
        seeds=1,
        overrides={
            **{key: value for key, value in tiny_overrides.items() if not key.startswith("downstream.arms")},
            "store": str(tmp_path),
        },
    )

    outcome, data = run(settings)
    text = markdown(outcome, data)

    real = {arm for arm in outcome.tested if outcome.chosen[arm].arm.source is None}
    assert {"real", "loss-oversampling"} <= real
    assert {"real+ancestral-all", "boost-and-skip-all first"} <= set(outcome.tested) - real
    assert all(set(by_seed) == {0} for by_seed in outcome.tested.values())
    assert all(f"| {arm} " in text for arm in outcome.tested)

    # Both runs drew as many candidates, of the same labels, and published results of their own.
    candidates, results = [], {}
    for folder in sorted(path.parent for path in tmp_path.rglob("manifest.json")):
        rows = pd.read_parquet(folder / "metadata.parquet")
        candidates.append(rows.loc[rows["sampler"] == "minority", ["sample_index", "group"]].reset_index(drop=True))
        sampler = json.loads((folder / "manifest.json").read_text())["config"]["sampler"]
        name = "boost-and-skip" if sampler.get("boost_and_skip") else "ancestral"
        (table,) = folder.glob("downstream/*/results.parquet")
        results[name] = pd.read_parquet(table)
    pd.testing.assert_frame_equal(*candidates)
    for arm, by_seed in outcome.tested.items():
        sampler = next((name for name in settings.samplers if name in arm), "ancestral")
        of_run = results[sampler].query("metric == 'accuracy'")
        of_run = of_run[of_run["arm"] == arm.replace(sampler, PUBLISHED_SOURCE)].set_index("seed")["value"]
        for seed, found in by_seed.items():
            assert (found.predicted == data.test.labels).mean() == of_run[seed]
