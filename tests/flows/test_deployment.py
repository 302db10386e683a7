"""The operator's way: a server, `prefect deploy --all`, a worker, and runs of the deployments."""

import json
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]


def test_a_deployment_run_completes_on_a_worker_and_publishes_what_a_local_run_does(digits_run, undisturbed, contents):
    store, watched, flow_run = digits_run

    assert watched.returncode == 0, watched.stdout + watched.stderr
    assert flow_run["state_type"] == "COMPLETED"
    assert contents(store) == contents(undisturbed.store)


def test_its_artifacts_are_visible(digits_run, ask_api):
    store, _, flow_run = digits_run

    mine = {"artifacts": {"flow_run_id": {"any_": [flow_run["id"]]}}}
    artifacts = {artifact["key"]: artifact for artifact in ask_api("artifacts/filter", mine)}

    stages = {"real-images", "baseline", "round-0", "round-1", "tuning", "testing"}
    assert all(artifacts[key]["type"] == "progress" for key in stages)
    assert all(artifacts[key]["data"] == 100.0 for key in stages)
    names = ("samplers", "arms", "samples", "report", "verdict")
    samplers, arms, picture, report, verdict = (artifacts[f"digits-{name}"]["data"] for name in names)
    assert "minority" in str(samplers)
    assert "real + minority" in str(arms)
    assert "data:image/png;base64," in picture
    # All of it is read where neither the store nor the worker's disk is at hand.
    assert "file://" not in json.dumps(list(artifacts.values()))
    assert all(len(json.dumps(artifact["data"])) < 500_000 for artifact in artifacts.values())
    assert f"{store}/digits/runs/" in report
    assert "| real + minority |" in verdict
    assert "| minority |" in verdict


def test_its_dataset_is_announced_by_an_event(digits_run, ask_api):
    store, _, flow_run = digits_run
    (manifest,) = store.rglob("manifest.json")
    published = {"filter": {"event": {"name": ["minority.dataset.published"]}}}
    end = time.monotonic() + 30

    while not (mine := [event for event in ask_api("events/filter", published)["events"] if of_run(event, flow_run)]):
        assert time.monotonic() < end, "the server stored no such event"
        time.sleep(0.5)

    (event,) = mine
    assert event["resource"]["prefect.resource.id"] == "minority.dataset.digits"
    counts = json.loads(manifest.read_text())["counts"].values()
    assert event["payload"] == {
        "dataset": "digits",
        "run_id": manifest.parent.name,
        "recipe": json.loads(manifest.read_text())["recipe"],
        "manifest": str(manifest),
        "images": {source: sum(count[source] for count in counts) for source in ("real", "synthetic")},
        "shards": len(list(manifest.parent.glob("shards/*.tar"))),
        "shortfall": sum(quota["shortfall"] for quota in json.loads(manifest.read_text())["quotas"].values()),
        "is_latest": True,
    }


def of_run(event, flow_run):
    return any(other["prefect.resource.id"] == f"prefect.flow-run.{flow_run['id']}" for other in event["related"])


def told(ask_api, flow_run):
    """Everything that the server keeps of a run, but for what its caller wrote: state and logs."""
    logs = ask_api("logs/filter", {"logs": {"flow_run_id": {"any_": [flow_run["id"]]}}, "limit": 200})
    assert logs
    return json.dumps([logs, flow_run["state"]])


def test_a_secret_of_the_workers_environment_shows_nowhere(digits_run, ask_api, contents, secret):
    store, watched, flow_run = digits_run

    assert secret not in told(ask_api, flow_run) + json.dumps(flow_run) + watched.stdout + watched.stderr
    assert not any(secret.encode() in data for data in contents(store).values())


def test_a_store_that_is_named_with_its_credentials_is_refused_without_repeating_them(run_deployment, ask_api, secret):
    watched, flow_run = run_deployment("augment/digits", {"store": f"s3://key:{secret}@bucket/runs"})

    assert watched.returncode == 1
    assert "store is a URL that holds credentials" in flow_run["state"]["message"]
    assert secret not in told(ask_api, flow_run)


def test_its_tasks_carry_the_names_of_their_units(digits_run, ask_api):
    _, _, flow_run = digits_run

    mine = {"flow_runs": {"id": {"any_": [flow_run["id"]]}}, "limit": 200}
    names = {task["name"] for task in ask_api("task_runs/filter", mine)}

    assert {
        "real-00-00000",
        "plain-00-00000",
        "minority-00-00000",
        "minority-01-00000",
        "real+minority-test-0",
        "fit what digits needs",
        "publish digits",
        "report on digits",
    } <= names


def test_it_is_named_by_its_dataset_and_recipe(digits_run, ask_api):
    store, _, flow_run = digits_run
    (manifest,) = store.rglob("manifest.json")

    assert ask_api(f"flow_runs/{flow_run['id']}")["name"] == f"augment digits {manifest.parent.name}"


def test_a_run_that_lacks_its_inputs_ends_failed_and_says_so_in_one_line(run_deployment, tmp_path):
    started = time.monotonic()
    missing = {"dataset.folder": str(tmp_path / "no-celeba"), "backbone.path": str(tmp_path / "no-weights.pt")}

    watched, flow_run = run_deployment("augment/celeba", missing | {"store": str(tmp_path / "store")})

    assert watched.returncode == 1
    assert flow_run["state_type"] == "FAILED"
    message = flow_run["state"]["message"]
    assert f"CelebA folder {tmp_path / 'no-celeba'} does not exist" in message
    assert f"{tmp_path / 'no-weights.pt'} does not exist" in message
    assert "\n" not in message
    assert not (tmp_path / "store" / "celeba").exists()
    assert time.monotonic() - started < 120


@pytest.mark.parametrize("preset", ["digits", "celeba"])
def test_a_schedule_waits_for_the_operator(deployed, ask_api, preset):
    deployment = ask_api(f"deployments/name/augment/{preset}")

    (schedule,) = deployment["schedules"]
    assert schedule["active"] is False
    assert schedule["schedule"]["cron"]
    assert deployment["work_pool_name"] == "gpu"
