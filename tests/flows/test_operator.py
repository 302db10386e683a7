"""What an operator has in Prefect: forms, refusals before a run is created, runs followed from here, notifications."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from yaml import safe_dump, safe_load

pytestmark = pytest.mark.system

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
#: No sample of the tiny backbone is real enough for it.
BARREN = {"selection.realism_floor": 1e9, "plan.max_rounds": 1, "plan.quota": 12, "downstream.seeds": 0}


#: One of every flow, and of readers with much and with little to set.
DEPLOYED = (
    "augment/digits",
    "augment/celeba",
    "augment/ham10000",
    "backbone/cifar10-lt-small",
    "calibrate/fashion-mnist-lt",
    "adapt/t2i-demo",
    "discover/celeba",
    "downstream/digits",
)


@pytest.fixture(scope="module")
def deployed(at_work):
    """Some deployments of prefect.yaml, and a worker. Automations are off."""
    with at_work(*(part for name in DEPLOYED for part in ("--name", name))):
        yield


@pytest.fixture(scope="module")
def mailbox():
    """(address, what arrived there) of a web server that takes notifications."""
    arrived = []

    class Mailbox(BaseHTTPRequestHandler):
        def do_POST(self):
            arrived.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Mailbox)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", arrived
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def told(deployed, prefect, prefect_api, mailbox, tmp_path_factory):
    """Waits for a notification whose subject begins so; the automations of deploy/ that tell are on the server."""
    from prefect.blocks.notifications import CustomWebhookNotificationBlock

    address, arrived = mailbox
    content = {"subject": "{{subject}}", "body": "{{body}}"}
    block = CustomWebhookNotificationBlock(name="mailbox", url=address, json_data=content)
    block_id = block.save("mailbox", overwrite=True, _sync=True)
    files = sorted((DEPLOY / "automations").glob("tell-of-*.yaml"))
    assert len(files) == 3
    for file in files:
        automation = safe_load(file.read_text())
        (action,) = automation["actions"]
        action["block_document_id"] = str(block_id)
        own = tmp_path_factory.mktemp("automations") / file.name
        own.write_text(safe_dump(automation))
        done = prefect("automation", "create", "--from-file", str(own))
        assert done.returncode == 0, done.stdout + done.stderr

    def wait(subject, *, seconds=60):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for mail in arrived:
                if mail["subject"].startswith(subject):
                    return mail
            time.sleep(0.5)
        pytest.fail(f"nobody was told of {subject!r}, but of {arrived}")
        return None

    return wait


@pytest.fixture(scope="module")
def short_run(told, minority, as_options, tiny_overrides, tmp_path_factory):
    """A deployed run that keeps nothing, started and followed from the command line: its store, and the command."""
    store = tmp_path_factory.mktemp("submitted") / "store"
    return store, minority(
        "submit", "digits", "--watch", "--json", "--store", store, *as_options(tiny_overrides | BARREN)
    )


def runs_of(ask_api, deployment):
    found = ask_api(f"deployments/name/{deployment}")
    return ask_api("flow_runs/filter", {"flow_runs": {"deployment_id": {"any_": [found["id"]]}}})


def artifacts_of(ask_api, run):
    mine = {"artifacts": {"flow_run_id": {"any_": [run]}}}
    return {artifact["key"]: artifact for artifact in ask_api("artifacts/filter", mine)}


def test_every_field_of_every_deployed_form_has_a_text_and_an_example(deployed, ask_api):
    forms = {deployment["id"]: deployment for deployment in ask_api("deployments/filter", {})}

    assert len(forms) >= len(DEPLOYED)
    for form in forms.values():
        schema = form["parameter_openapi_schema"]
        fields = {
            f"{section['title']}.{name}": field
            for section in (schema, *schema["definitions"].values())
            for name, field in section.get("properties", {}).items()
        }
        assert [
            name for name, field in fields.items() if not (field.get("description") and field.get("examples"))
        ] == []
        assert form["enforce_parameter_schema"] is True
        dataset = form["parameters"]["config"].get("dataset")
        if dataset is not None:
            assert fields["DatasetConfig.reader"]["enum"] == [dataset["reader"]]
            assert ("DatasetConfig.folder" in fields) == ("digits" not in dataset["reader"])


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"sampler.stps": 25}, "'sampler.stps' was unexpected"),
        ({"plan.expected_yield": 2}, "2 is greater than the maximum of 1"),
        ({"dataset.folder": "/data"}, "'dataset.folder' was unexpected"),
    ],
)
def test_a_wrong_setting_is_refused_before_a_run_is_created(deployed, prefect, ask_api, overrides, reason):
    before = len(runs_of(ask_api, "augment/digits"))

    refused = prefect("deployment", "run", "augment/digits", "-p", f"overrides={json.dumps(overrides)}")

    assert refused.returncode == 1
    assert reason in " ".join((refused.stdout + refused.stderr).split())
    assert len(runs_of(ask_api, "augment/digits")) == before


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["augment/digits", "--set", "sampler.stps=25"], "sampler.stps is not a setting; did you mean steps"),
        # What no schema tells: two settings that do not go together.
        (["augment/digits", "--set", "selection.policy=recognised"], "set scores.zero_shot, too"),
        (["augment/digts"], "the Prefect server has no deployment augment/digts; did you mean augment/digits"),
        (["nope/digits"], "the Prefect server has no deployment nope/digits"),
        (["augment/digits", "--set", "dataset.reader=coloured_digits"], "'coloured_digits' is not one of"),
    ],
)
def test_submit_checks_a_run_before_it_creates_it(deployed, minority, ask_api, arguments, reason):
    before = len(runs_of(ask_api, "augment/digits"))

    refused = minority("submit", *arguments)

    assert refused.code == 2
    assert reason in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert len(runs_of(ask_api, "augment/digits")) == before


def test_a_run_is_followed_to_its_end_in_lines_where_output_is_piped(short_run):
    _, ended = short_run

    assert ended.code == 0, ended.stderr
    lines = ended.on_the_way.splitlines()
    assert any(line.startswith("note: augment digits: ") for line in lines)
    stages = [line.split(":")[1].strip() for line in lines if line.startswith("progress: ")]
    assert {"real images", "round 0"} <= set(stages)
    assert len(stages) == len(set(stages)), "a short stage has one line, at its end"
    assert ended.stderr.startswith("started: augment digits, http")


def test_its_name_tells_dataset_and_recipe(short_run, ask_api):
    store, ended = short_run
    (manifest,) = store.rglob("manifest.json")
    recipe = json.loads(manifest.read_text())["recipe"]

    printed = json.loads(ended.stdout)

    assert (printed["name"], printed["state"]) == (f"augment digits {recipe}", "Completed")
    assert ask_api(f"flow_runs/{printed['flow_run']}")["name"] == printed["name"]
    assert printed["flow_run"] in printed["address"]


def test_its_verdict_is_an_artifact_that_begins_with_the_shortfall(short_run, ask_api):
    _, ended = short_run

    verdict = artifacts_of(ask_api, json.loads(ended.stdout)["flow_run"])["digits-verdict"]["data"]

    first, second, *rest = [line for line in verdict.splitlines() if line]
    assert first.startswith("# digits ")
    assert second.startswith("**Shortfall: kept 0 of ")
    assert rest[0].startswith("- digit=")


def test_somebody_is_told_of_publishing_and_of_a_shortfall(short_run, told):
    store, _ = short_run
    (manifest,) = store.rglob("manifest.json")
    run_id = manifest.parent.name
    lacking = {
        group: quota["shortfall"]
        for group, quota in json.loads(manifest.read_text())["quotas"].items()
        if quota["shortfall"]
    }

    published, short = told(f"digits {run_id} is published"), told(f"digits {run_id} lacks ")

    assert published["body"].startswith("0 synthetic and ")
    assert str(manifest) in published["body"]
    assert short["subject"] == f"digits {run_id} lacks {sum(lacking.values())} images"
    assert all(f"{group} lacks {count}" in short["body"] for group, count in lacking.items())


def test_a_run_that_fails_ends_the_command_with_one_and_somebody_is_told(told, minority, tmp_path):
    missing = f"dataset.folder={tmp_path / 'no-celeba'}"

    ended = minority("submit", "augment/celeba", "--watch", "--store", tmp_path / "store", "--set", missing)

    assert ended.code == 1
    assert ended.stdout == ""
    failed = ended.stderr.splitlines()[-1]
    assert failed.startswith("failed: augment celeba ended Failed: ")
    assert "no-celeba does not exist" in failed
    mail = told("augment celeba is Failed")
    assert "no-celeba does not exist" in mail["body"]
    assert "/runs/flow-run/" in mail["body"]


def test_a_server_that_is_not_named_is_asked_for():
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from typer.testing import CliRunner

    from flows.command_line import app

    with temporary_settings({PREFECT_API_URL: None}):
        ended = CliRunner().invoke(app, ["submit", "digits"])

    assert ended.exit_code == 2
    assert "PREFECT_API_URL is not set" in ended.stderr
