"""What an operator sees of a run: counters for Prometheus, ids on every line, pace."""

import gc
import logging
import re
import socket
import urllib.request

import pytest
from prefect.logging.handlers import APILogHandler
from prefect.settings import PREFECT_CLIENT_METRICS_ENABLED, PREFECT_CLIENT_METRICS_PORT, temporary_settings
from prefect.utilities.services import stop_client_metrics_server
from prometheus_client import generate_latest

from flows.augment import augment

# Prefect stops its metrics server without closing the socket.
pytestmark = [
    pytest.mark.system,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def informative():
    """Lines of INFO reach the server, as they do on a worker."""
    levels = {name: logging.getLogger(name).level for name in ("prefect.flow_runs", "prefect.task_runs")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.INFO)
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture(scope="module")
def seen(informative, prefect_api, tiny_overrides, tmp_path_factory):
    """A tiny run with counters asked for: what was scraped before and after, and its flow run's id."""
    from tasks.config.presets import load_preset
    from tasks.config.runs import AugmentConfig

    store = {"store": str(tmp_path_factory.mktemp("seen") / "store")}
    config = load_preset(AugmentConfig, "digits", overrides=tiny_overrides | store)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    before = figures(generate_latest().decode())
    asked = {PREFECT_CLIENT_METRICS_ENABLED: True, PREFECT_CLIENT_METRICS_PORT: port}
    try:
        with temporary_settings(asked):
            state = augment(config, return_state=True)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                after = figures(answer.read().decode())
    finally:
        stop_client_metrics_server()
        gc.collect()
        APILogHandler().flush()
    assert state.is_completed(), state.message
    return state, {name: value - before.get(name, 0.0) for name, value in after.items()}


def figures(exposition):
    """Name with labels -> value, as Prometheus' text format has them."""
    lines = (line.rsplit(" ", 1) for line in exposition.splitlines() if line.startswith("minority_"))
    return {name: float(value) for name, value in lines if "_created" not in name}


def test_counters_tell_samples_yield_and_seconds(seen):
    import pandas as pd

    state, counted = seen
    summary = state.result()
    rows = pd.read_parquet(summary.manifest.replace("manifest.json", "metadata.parquet"))
    made = rows.groupby("sampler").size()
    passed = rows[["rare", "valid", "new", "label_kept"]].fillna(False).all(axis=1).groupby(rows["sampler"]).sum()

    for sampler in ("minority", "plain", "real"):
        labels = f'{{dataset="digits",sampler="{sampler}"}}'
        assert counted[f"minority_samples_total{labels}"] == made[sampler]
        assert counted[f"minority_samples_passed_total{labels}"] == (0 if sampler == "real" else passed[sampler])
    assert counted['minority_device_busy_seconds_total{device="cpu"}'] > 0
    for name in ("real images", "round 0", "baseline", "tuning", "testing"):
        assert counted[f'minority_stage_seconds_total{{stage="{name}"}}'] > 0


def test_every_line_of_the_run_names_it_and_its_unit(seen, ask_api):
    state, _ = seen
    flow_run = str(state.state_details.flow_run_id)
    logs = ask_api("logs/filter", {"logs": {"flow_run_id": {"any_": [flow_run]}}, "limit": 200})
    of_units = [log["message"] for log in logs if "samples made" in log["message"]]
    of_stages = [log["message"] for log in logs if "samples/s" in log["message"] and "left" in log["message"]]

    assert len(of_units) > 10
    assert all(re.fullmatch(r"run \w{12} unit (real|plain|minority)-\d\d-\d{5}: .*", line) for line in of_units)
    assert any(
        re.match(r"run \w{12}: round 0: \d+ of \d+ samples, [\d.e+]+ samples/s, 0:00:00 left", line)
        for line in of_stages
    )


def test_progress_tells_the_pace_in_the_ui(seen, ask_api):
    state, _ = seen
    mine = {"artifacts": {"flow_run_id": {"any_": [str(state.state_details.flow_run_id)]}}}
    told = {artifact["key"]: artifact["description"] for artifact in ask_api("artifacts/filter", mine)}

    assert re.match(r"round 0: (\d+) of \1 samples, .* samples/s, 0:00:00 left", told["round-0"])
