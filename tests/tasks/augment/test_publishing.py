import json

import pytest

from datasets.runs.manifest import Manifest
from datasets.runs.tables import parse_table
from datasets.runs.verify import verify
from tasks.augment.decisions import Decisions
from tasks.augment.planning import plan_real
from tasks.augment.plans import load_or_create_plan
from tasks.augment.publishing import publish_rounds
from tasks.augment.units import make_unit
from tasks.inputs.run_store import open_run_store
from tasks.inputs.workspace import open_workspace


@pytest.fixture
def run(tiny_config):
    """A workspace and the store of a run whose real images are scored."""
    workspace = open_workspace(tiny_config(plan__unit_size=60))
    store = open_run_store(workspace.run)
    for unit in load_or_create_plan(plan_real(workspace.config.plan, workspace.real), store):
        make_unit(unit, workspace, store)
    return workspace, store


def test_the_manifest_names_the_real_images(run):
    workspace, store = run

    manifest = publish_rounds(workspace, store, rounds=0)

    assert manifest.real_digest == workspace.real.digest
    assert Manifest.from_json(store.read("manifest.json")) == manifest
    assert verify(store.url("manifest.json")) == []


def test_a_unit_that_was_evaluated_on_other_images_is_refused_before_anything_is_published(run):
    workspace, store = run
    path = next(path for path in store.list("units") if path.endswith(".json"))
    receipt = json.loads(store.read(path))
    store.write(path, json.dumps(receipt | {"recipe": "0123456789ab"}).encode())

    with pytest.raises(ValueError, match=rf"{path} is of recipe 0123456789ab, this run is recipe {workspace.recipe}:"):
        publish_rounds(workspace, store, rounds=0)

    assert [name for name in store.list() if not name.startswith(("units/", "plans/"))] == ["run.json"]


def test_a_run_that_was_approved_has_the_columns_of_a_review_and_its_manifest_says_by_whom(run):
    workspace, store = run
    decisions = Decisions(workspace.config.name, workspace.run_id, {}, approved_by="Ada")

    manifest = publish_rounds(workspace, store, rounds=0, decisions=decisions)

    assert manifest.review.decided_by == ["Ada"]
    assert (manifest.review.units_of, manifest.review.version_of) == (workspace.run_id, None)
    assert Manifest.from_json(store.read("manifest.json")) == manifest
    assert verify(store.url("manifest.json")) == []
    rows = parse_table(store.read("metadata.parquet"), name="metadata.parquet")
    assert rows.column_names[-3:] == ["decision", "decision_reason", "decided_by"]
