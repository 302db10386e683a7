"""Figures in a real MLflow server, in an environment of its own that has this project's packages too.

python -m venv ENV && ENV/bin/pip install mlflow, a line in ENV/lib/python3.*/site-packages/project.pth with the folder
of this project's own packages (.venv/lib/python3.*/site-packages), and MINORITY_MLFLOW_PYTHON=ENV/bin/python.
"""

import importlib.util
import json
import os
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from tasks.errors import InputError
from tasks.execution.tracking import VARIABLE, Tracking, require_tracking

ROOT = Path(__file__).resolve().parents[3]


def test_nothing_is_told_and_nothing_needed_where_no_server_is_named(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)

    require_tracking()
    tracking = Tracking("experiment", "name", key="key", params={}, tags={})
    tracking.log({"loss": 1.0})
    tracking.finish()
    assert tracking.last_step("loss") == -1


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is not None, reason="mlflow is installed here")
def test_a_server_without_the_package_is_refused_in_one_line(monkeypatch):
    monkeypatch.setenv(VARIABLE, "http://somebody:secret@127.0.0.1:1")

    with pytest.raises(
        InputError, match=r"mlflow is not installed; pip install 'minority-augment\[mlflow\]'"
    ) as caught:
        require_tracking()
    assert "\n" not in str(caught.value)


@pytest.fixture
def python():
    """The Python of the environment that has mlflow."""
    found = os.environ.get("MINORITY_MLFLOW_PYTHON")
    if not found:
        pytest.skip("MINORITY_MLFLOW_PYTHON is not set; the docstring of this file says how to make that environment")
    return found


@pytest.fixture
def server(python, tmp_path):
    """The URL of a running MLflow server with a database of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    command += ["--default-artifact-root", str(tmp_path / "artifacts"), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1"]
    url = f"http://127.0.0.1:{port}"
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"{url}/health", timeout=5).close()
                    break
                except OSError:
                    assert process.poll() is None, (tmp_path / "server.log").read_text()[-2000:]
                    time.sleep(0.5)
            yield url
        finally:
            os.killpg(process.pid, 15)
            process.wait(60)


def run(python, code, url, **more):
    environment = os.environ | {VARIABLE: url, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | more
    done = subprocess.run(
        [python, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


_READ = """
def runs_of(experiment):
    from mlflow import MlflowClient
    client = MlflowClient()
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return [
        {
            "name": run.info.run_name, "status": run.info.status, "metrics": run.data.metrics,
            "params": run.data.params, "tags": run.data.tags,
            "history": {name: [[m.step, m.value] for m in client.get_metric_history(run.info.run_id, name)]
                        for name in run.data.metrics},
        }
        for run in found
    ]
"""

_TRAINING = """
import json, sys
from tasks.backbone.progress_folder import LOSSES, TrainingFolder
from tasks.backbone.train import progress_folder, train
from tasks.config.presets import load_preset
from tasks.config.runs import TrainBackboneConfig
from tests.tasks.backbone.test_backbone_training import TINY
changes = TINY | {"out": OUT, "training.checkpoint_every": 2, "quality.samples": 20, "quality.bits_images": 2}
changes |= {"quality.sampling_steps": 2, "quality.bits_steps": 2}
config = load_preset(TrainBackboneConfig, "digits", overrides=changes)
for _ in range(2):
    train.fn(config)
lines = TrainingFolder(progress_folder(config)).lines(LOSSES)
print(json.dumps({"runs": runs_of("minority-backbones"), "lines": lines}))
"""


def test_a_training_that_is_run_again_is_one_run_with_every_loss_once_and_the_figures_of_its_card(
    python, server, tmp_path
):
    found = run(python, _READ + _TRAINING.replace("OUT", repr(str(tmp_path / "backbone"))), server)

    (told,) = found["runs"]
    assert told["name"] == "digits"
    assert told["status"] == "FINISHED"
    assert told["params"]["training.steps"] == "6"
    assert told["history"]["loss"] == [[line["step"], pytest.approx(line["loss"])] for line in found["lines"]]
    assert {name for name in told["metrics"] if name.startswith("quality.")}


_COMPARISON = """
import json
from tasks.report.tracked_comparison import track_comparison
def figure(value):
    return {"value": value, "low": value - 0.1, "high": None}
arm = {"setting": "learning rate 0.1", "num_synthetic": 4, "means": {"accuracy": figure(0.5)},
       "groups": {"digit=3": figure(0.25)}, "cost": {"training": 10.0, "drawing": None, "image": 2.0}}
figures = {"dataset": "digits", "run_id": "one", "recipe": "abc", "verdict": "worth it",
           "downstream": {"arms": {"real": arm, "real+minority": arm}, "budget": {"steps": 3}}}
for _ in range(2):
    track_comparison(figures, manifest="/store/manifest.json", folder="report")
print(json.dumps(runs_of("minority-downstream")))
"""


def test_every_recipe_of_a_comparison_is_a_run_with_its_groups(python, server):
    found = run(python, _READ + _COMPARISON, server)

    assert {told["name"] for told in found} == {"digits: real only", "digits: real + minority"}
    for told in found:
        assert told["metrics"]["accuracy"] == 0.5
        assert told["metrics"]["accuracy.low"] == 0.4
        assert told["metrics"]["accuracy of digit_3"] == 0.25
        assert "accuracy.high" not in told["metrics"]
        assert told["metrics"]["multiply-adds.training"] == 10
        assert told["tags"]["minority.manifest"] == "/store/manifest.json"
        assert told["status"] == "FINISHED"


_AWAY = """
import json
from tasks.errors import InputError
from tasks.execution.tracking import require_tracking
try:
    require_tracking()
except InputError as error:
    print(json.dumps(str(error)))
"""


def test_a_server_that_does_not_answer_is_named_in_one_line_without_its_password(python):
    found = run(python, _AWAY, "http://ada:secret@127.0.0.1:9", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")

    assert found.startswith("MLflow at http://127.0.0.1:9 cannot be used")
    assert "secret" not in found
    assert "\n" not in found
