"""A run with publish.provenance: its pixels are those of the same run without it, and it says what drew them."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from datasets.runs.latest import move_latest
from datasets.runs.manifest import Manifest
from datasets.runs.provenance import provenance_of_png
from datasets.runs.verify import verify
from datasets.storage.canonical import canonical_json
from datasets.storage.store import Store
from tasks.augment.decisions import read_decisions
from tasks.augment.planning import Tally, plan_real, plan_round, quotas
from tasks.augment.plans import load_or_create_plan
from tasks.augment.publishing import publish_rounds
from tasks.augment.units import make_unit
from tasks.augment.versions import publish_version
from tasks.config.presets import load_preset
from tasks.config.runs import AugmentConfig
from tasks.inputs.published_run import open_published
from tasks.inputs.run_store import open_run_store
from tasks.inputs.workspace import open_workspace


def images_of(folder):
    """Key -> the bytes of every published PNG."""
    found = {}
    for shard in sorted((folder / "shards").glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.name.endswith(".png"):
                    found[member.name.removesuffix(".png")] = tar.extractfile(member).read()
    return found


@pytest.fixture(scope="module")
def runs(tiny_overrides, tmp_path_factory):
    """The folders of a run of one round, without and with provenance."""
    folders = []
    for told in (False, True):
        store = tmp_path_factory.mktemp("drawn") / "store"
        changes = {"store": str(store), "plan.baseline": False, "publish.provenance": told, "run_id": "one"}
        workspace = open_workspace(load_preset(AugmentConfig, "digits", overrides=tiny_overrides | changes))
        run_store, wanted = open_run_store(workspace.run), quotas(workspace.real, workspace.config.plan)
        tallies = [Tally(missing=count) for count in wanted]
        first = plan_round(workspace.config.plan, tallies, round_number=0, first_index=0, wanted=wanted)
        for plan in (plan_real(workspace.config.plan, workspace.real), first):
            for unit in load_or_create_plan(plan, run_store):
                make_unit(unit, workspace, run_store)
        publish_rounds(workspace, run_store, rounds=1)
        move_latest(Store(store), "digits", "one")
        folders.append(store / "digits" / "runs" / "one")
    return folders


def test_images_say_what_drew_them_and_are_the_same_pixels(runs):
    plain, told = (images_of(folder) for folder in runs)
    manifest = Manifest.from_json((runs[1] / "manifest.json").read_bytes())
    table = pd.read_parquet(runs[1] / "metadata.parquet").set_index("key")

    assert plain.keys() == told.keys()
    assert verify(str(runs[1] / "manifest.json")) == []
    for key, data in told.items():
        row, said = table.loc[key], provenance_of_png(data, name=key)
        assert np.array_equal(*(np.asarray(Image.open(io.BytesIO(png))) for png in (plain[key], data)))
        if row["source"] == "real":
            assert data == plain[key]
            assert said is None
            assert row[["backbone", "backbone_sha256", "recipe"]].isna().all()
            continue
        assert (said.recipe, said.backbone_sha256) == (manifest.recipe, manifest.backbone["sha256"])
        assert (said.seed, said.sample_index) == (row["seed"], row["sample_index"])
        assert (row["recipe"], row["backbone"]) == (manifest.recipe, manifest.backbone["name"])
    assert "Each synthetic PNG says so" in (runs[1] / "README.md").read_text()


def test_without_it_tables_and_settings_are_as_they_always_were(runs):
    table = pd.read_parquet(runs[0] / "metadata.parquet")
    manifest = Manifest.from_json((runs[0] / "manifest.json").read_bytes())

    assert not {"backbone", "backbone_sha256", "recipe"} & set(table.columns)
    assert "provenance" not in manifest.config["publish"]


def test_a_version_of_a_run_says_it_too(runs):
    before = images_of(runs[1])
    bad = next(key for key in sorted(before) if key.startswith("s"))
    file = {"format": "minority-decisions-1", "dataset": "digits", "run_id": "one", "decided_by": "Ada"}
    decisions = read_decisions(canonical_json(file | {"decisions": {bad: {"decision": "bad"}}}), name="marks")
    url = publish_version(open_published(f"{runs[1]}/manifest.json"), decisions, store=Store(runs[1].parents[2]))

    after = images_of(Path(url).parent)
    assert verify(url) == []
    assert bad not in after
    assert {key: data for key, data in after.items() if key in before} == {k: v for k, v in before.items() if k != bad}
