"""A run that waits for its approval: suspended before it publishes, and gone on with by a form, whatever dies between.

A real Prefect server and a worker in processes of their own, and kill -9.
"""

import json
import re
import urllib.error
from pathlib import Path

import operation  # conftest.py has loaded it
import pandas as pd
import pytest

from datasets.runs.manifest import Manifest
from datasets.runs.verify import verify

pytestmark = pytest.mark.slow

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


@pytest.fixture(scope="module")
def settings(tiny_overrides):
    return tiny_overrides | {"publish.review": True, "plan.baseline": False, "downstream.seeds": 0}


def resume(site, run, **answer):
    """What the form of the UI sends; a server that has only just started may be too busy at first (503)."""

    def send():
        try:
            return site.ask(f"flow_runs/{run}/resume", {"run_input": answer})
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
            return None

    answered = operation.wait_until(send, seconds=300, what="the server to take the answer", every=2)
    assert answered["status"] == "ACCEPT", answered


def waits(site, run, attempt):
    """Until the run is suspended for the so-manieth time."""

    def look():
        state = site.ask(f"flow_runs/{run}")["state"]
        assert state["type"] not in {"FAILED", "CRASHED", "CANCELLED", "COMPLETED"}, site.why(run)
        return state["type"] == "PAUSED" and state["state_details"]["pause_key"] == f"approval-{attempt}"

    operation.wait_until(look, seconds=1200, what=f"the run to wait; {site.why(run)}")


def shown(store):
    """Key -> whether it is kept, as the gallery of the only run shows it."""
    (page,) = store.rglob("gallery.html")
    data = json.loads(re.search(r'(?s)id="data">(.*?)</script>', page.read_text())[1])
    return dict(zip(data["candidates"]["key"], data["candidates"]["kept"], strict=True)), data["run_id"]


def test_a_run_publishes_what_was_approved_though_everything_was_killed_while_it_waited(site, settings, tmp_path):
    store = tmp_path / "store"
    worker = site.start_worker()
    run = site.submit("augment/digits", settings | {"store": str(store)})
    waits(site, run, 0)
    operation.wait_until(lambda: len(operation.descendants(worker.pid)) == 1, seconds=120, what="its process to end")
    assert not list(store.rglob("manifest.json"))
    kept, run_id = shown(store)
    mine = {"artifacts": {"flow_run_id": {"any_": [run]}}}
    artifacts = {artifact["key"]: artifact["data"] for artifact in site.ask("artifacts/filter", mine)}
    assert "gallery.html" in artifacts["digits-gallery"]
    assert f"Of {len(kept)} candidates {sum(kept.values())} would be published" in artifacts["digits-review"]

    worker.kill()
    site.kill_server()
    site.start_server()
    worker = site.start_worker()
    waits(site, run, 0)

    # Marks that nobody can use: it asks again.
    resume(site, run, verdict="approve", decided_by="Ada", marks='{"format": "notes"}')
    waits(site, run, 1)
    # A worker of Prefect 3.8 with a limit dies of a run that comes back before the process that suspended it has ended.
    operation.wait_until(lambda: len(operation.descendants(worker.pid)) == 1, seconds=120, what="its process to end")
    assert not list(store.rglob("manifest.json"))

    bad = [key for key, is_kept in kept.items() if is_kept][:3]
    marks = {"format": "minority-decisions-1", "dataset": "digits", "run_id": run_id}
    marks["decisions"] = {key: {"decision": "bad", "reason": "no digit"} for key in bad}
    resume(site, run, verdict="approve", decided_by="Ada", marks=json.dumps(marks))
    site.wait_for_state(run, "COMPLETED")

    (manifest,) = store.rglob("manifest.json")
    assert verify(str(manifest)) == []
    rows = pd.read_parquet(manifest.with_name("metadata.parquet")).set_index("key")
    published = set(rows.index[rows["kept"] & (rows["source"] == "synthetic")])
    assert {key for key, is_kept in kept.items() if is_kept} - published == set(bad)
    assert rows.loc[bad, "decided_by"].eq("Ada").all()
    assert rows.loc[sorted(published), "decision"].isna().all()
    review = Manifest.from_json(manifest.read_bytes()).review
    assert (review.decided_by, review.version_of, review.units_of) == (["Ada"], None, run_id)


def test_a_run_that_is_rejected_ends_cancelled_and_publishes_nothing(site, settings, tmp_path):
    store = tmp_path / "store"
    site.start_worker()
    run = site.submit("augment/digits", settings | {"store": str(store)})
    waits(site, run, 0)

    resume(site, run, verdict="reject", decided_by="Grace", note="all noise")

    site.wait_for_state(run, "CANCELLED")
    assert "rejected by Grace: all noise; nothing was published" in site.why(run)
    assert not list(store.rglob("manifest.json"))


def test_a_run_that_nobody_approves_is_ended_by_the_automation(site, settings, tmp_path):
    file = tmp_path / "end.yaml"
    file.write_text((DEPLOY / "automations" / "end-of-review.yaml").read_text().replace("within: 604800", "within: 20"))
    site.prefect("automation", "create", "--from-file", file)
    site.start_worker()
    run = site.submit("augment/digits", settings | {"store": str(tmp_path / "store")})
    waits(site, run, 0)

    site.wait_for_state(run, "CANCELLED")

    assert "nobody has approved it within a week" in site.why(run)
    assert not list((tmp_path / "store").rglob("manifest.json"))
