"""The flow that compares arms on a published run: by hand, again, and by itself after publishing."""

import json
import shutil
import time
from pathlib import Path

import pandas as pd
import pytest

pytestmark = pytest.mark.system

TINY = {
    "downstream.arms": ["real", "dfr", "real+minority", "real+unselected", "real+plain"],
    "downstream.seeds": 2,
    "downstream.budget": {"network": {"width": 4}, "steps": 2, "trials": 1, "tuning_seeds": 1},
}


@pytest.fixture(scope="module")
def compare(minority, as_options):
    """Runs `minority downstream digits` at tiny size: compare(store, {"downstream.seeds": 3})."""

    def run(store, settings=None):
        return minority("downstream", "digits", "--store", store, *as_options(TINY | (settings or {})))

    return run


@pytest.fixture(scope="module")
def compared(undisturbed, compare, tmp_path_factory):
    """A copy of a published run on which arms were compared: its folder, and how the command ended."""
    store = Path(shutil.copytree(undisturbed.store, tmp_path_factory.mktemp("compared") / "store"))
    command = compare(store)
    assert command.code == 0, command.stderr
    return store / undisturbed.folder.relative_to(undisturbed.store), command


def results_of(folder):
    """The folder of the comparison: the newest one with results."""
    return max(folder.glob("downstream/*/results.parquet"), key=lambda path: path.stat().st_mtime_ns).parent


def test_every_arm_is_tested_with_every_seed_on_every_test_image(compared):
    folder, _ = compared

    results = pd.read_parquet(results_of(folder) / "results.parquet")

    assert set(zip(results["arm"], results["seed"], strict=True)) == {
        (arm, seed) for arm in TINY["downstream.arms"] for seed in range(2)
    }
    assert {"worst_group_accuracy", "group_calibration_error", "macro_f1"} <= set(results["metric"])


def test_the_report_lies_beside_the_results_and_names_the_commands_that_make_it(compared):
    folder, command = compared

    page = (results_of(folder) / "report.html").read_text()

    assert f"report:   {results_of(folder) / 'report.html'}" in command.stdout
    assert "minority downstream digits --set" in page
    assert "minority augment digits --set" in page
    # As many of every group as the quota asks for, selected or not.
    rows = pd.read_parquet(folder / "metadata.parquet")
    arms = json.loads((results_of(folder) / "metrics.json").read_text())["downstream"]["arms"]
    kept = rows["kept"] & (rows["source"] == "synthetic")
    assert arms["real+minority"]["num_synthetic"] == kept.sum()
    asked = sum(q["asked"] for q in json.loads((folder / "manifest.json").read_text())["quotas"].values())
    assert kept.sum() <= arms["real+unselected"]["num_synthetic"] <= asked


def test_the_published_run_is_left_as_it_was(compared, undisturbed):
    folder, _ = compared
    mine = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    theirs = {
        path.relative_to(undisturbed.folder): path.read_bytes()
        for path in undisturbed.folder.rglob("*")
        if path.is_file()
    }

    assert {path: data for path, data in mine.items() if path in theirs} == theirs


def test_what_is_lost_is_trained_again_with_the_same_bytes_and_nothing_else_is(compared, compare):
    folder, _ = compared
    # Oversampling is an arm of the run's own comparison, which is not this one.
    predictions = sorted((folder / "downstream" / "predictions").glob("[!o]*.npz"))
    before = {path: (path.read_bytes(), path.stat().st_ino) for path in predictions}
    results = (results_of(folder) / "results.parquet").read_bytes()
    lost = predictions[::3]
    for path in lost:
        path.unlink()

    again = compare(folder.parents[2])

    assert again.code == 0, again.stderr
    after = {path: (path.read_bytes(), path.stat().st_ino) for path in predictions}
    assert {path: data for path, (data, _) in after.items()} == {path: data for path, (data, _) in before.items()}
    assert {path for path in predictions if after[path][1] == before[path][1]} >= set(predictions) - set(lost)
    assert (results_of(folder) / "results.parquet").read_bytes() == results


def test_without_a_published_run_nothing_is_compared(compare, tmp_path):
    refused = compare(tmp_path / "empty")

    assert refused.code == 2
    assert "nothing of digits is published in" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_an_unknown_arm_is_refused_with_the_likely_one(compared, compare):
    folder, _ = compared

    refused = compare(folder.parents[2], {"downstream.arms": ["reel"]})

    assert refused.code == 2
    assert refused.stderr == "error: downstream.arms: there is no arm reel here; did you mean real.\n"


@pytest.mark.slow
def test_a_published_dataset_starts_its_comparison_by_itself(
    run_deployment, ask_api, change_api, tiny_overrides, tmp_path
):
    store = tmp_path / "store"
    deployment = ask_api("deployments/name/downstream/digits")
    config = {"name": "digits", "store": str(store), "downstream": {"arms": ["real", "real+minority"], "seeds": 1}}
    config["downstream"]["budget"] = TINY["downstream.budget"]
    change_api(f"deployments/{deployment['id']}", {"parameters": {"config": config}})
    (automation,) = [each for each in ask_api("automations/filter", {}) if each["name"] == "digits__automation_1"]
    change_api(f"automations/{automation['id']}", {"enabled": True})

    run_deployment("augment/digits", tiny_overrides | {"store": str(store), "downstream": None})

    mine = {"flow_runs": {"deployment_id": {"any_": [deployment["id"]]}}, "sort": "EXPECTED_START_TIME_DESC"}
    end = time.monotonic() + 300
    while not any(run["state_type"] == "COMPLETED" for run in ask_api("flow_runs/filter", mine)):
        assert time.monotonic() < end, ask_api("flow_runs/filter", mine)
        time.sleep(1)
    change_api(f"automations/{automation['id']}", {"enabled": False})
    (manifest,) = store.rglob("manifest.json")
    (run,) = ask_api("flow_runs/filter", mine)
    assert run["parameters"]["overrides"] == {"manifest": str(manifest)}
    assert set(pd.read_parquet(results_of(manifest.parent) / "results.parquet")["arm"]) == {"real", "real+minority"}


def test_other_policies_choose_among_the_runs_candidates_and_get_arms(undisturbed, compare, tmp_path):
    from tasks.downstream.data import images_of_run
    from tasks.inputs.published_run import open_published

    store = Path(shutil.copytree(undisturbed.store, tmp_path / "store"))
    folder = store / undisturbed.folder.relative_to(undisturbed.store)
    arms = ["real", "real+minority-clean", "plain-moderate first"]

    command = compare(store, {"downstream.policies": ["clean", "moderate"], "downstream.arms": arms})

    assert command.code == 0, command.stderr
    results = pd.read_parquet(results_of(folder) / "results.parquet")
    assert set(results["arm"]) == set(arms)
    run = open_published(str(folder / "manifest.json"))
    found = images_of_run(run, ["minority-clean", "plain-moderate", "minority-all", "unselected"]).synthetic
    rows, asked = run.metadata, {group: quota["asked"] for group, quota in run.manifest.quotas.items()}
    good = rows["valid"].fillna(False) & rows["new"].fillna(False) & rows["label_kept"].fillna(False)
    for source, chosen in {
        "minority-clean": good & (rows["sampler"] == "minority"),
        "plain-moderate": good & (rows["sampler"] == "plain") & (rows["knn_distance_quantile"] > 0.5),
    }.items():
        wanted = rows[chosen].groupby("group").size().clip(upper=pd.Series(asked)).dropna()
        counts = pd.Series([run.real.groups[group] for group in found[source].groups]).value_counts()
        assert counts.to_dict() == wanted[wanted > 0].astype(int).to_dict()
    assert (found["minority-all"].images == found["unselected"].images).all()


def test_a_policy_that_needs_a_discriminator_is_refused_for_a_run_without_one(undisturbed, compare, tmp_path):
    store = Path(shutil.copytree(undisturbed.store, tmp_path / "store"))

    command = compare(store, {"downstream.policies": ["consistent"]})

    assert command.code == 2
    assert "downstream.policies: consistent goes by the discriminator's margin" in command.stderr
    assert "augment with selection.held_out" in command.stderr
