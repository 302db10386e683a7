"""`minority review`: what was refused goes, its places are filled again by the same rules, and all of it is told."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from datasets.runs.latest import move_latest, read_latest
from datasets.runs.manifest import Manifest
from datasets.runs.verify import verify
from datasets.storage.store import Store
from datasets.streaming.published import read_published
from tasks.augment.decisions import read_decisions
from tasks.augment.planning import Tally, plan_real, plan_round, quotas
from tasks.augment.plans import load_or_create_plan
from tasks.augment.publishing import publish_rounds
from tasks.augment.units import make_unit
from tasks.augment.versions import publish_version
from tasks.config.presets import load_preset
from tasks.config.runs import AugmentConfig
from tasks.errors import InputError
from tasks.inputs.published_run import open_published
from tasks.inputs.run_store import open_run_store
from tasks.inputs.workspace import open_workspace
from tasks.review.review_run import review_run


@pytest.fixture(scope="module")
def drawn(tiny_overrides, tmp_path_factory):
    """The store of a published run of one round, more candidates than places; others copy it."""
    store = tmp_path_factory.mktemp("drawn") / "store"
    changes = {"store": str(store), "plan.baseline": False, "selection.label_floor": 0.48, "selection.diverse": True}
    workspace = open_workspace(load_preset(AugmentConfig, "digits", overrides=tiny_overrides | changes))
    run_store, wanted = open_run_store(workspace.run), quotas(workspace.real, workspace.config.plan)
    tallies = [Tally(missing=3 * count) for count in wanted]
    first = plan_round(workspace.config.plan, tallies, round_number=0, first_index=0, wanted=wanted)
    for plan in (plan_real(workspace.config.plan, workspace.real), first):
        for unit in load_or_create_plan(plan, run_store):
            make_unit(unit, workspace, run_store)
    publish_rounds(workspace, run_store, rounds=1)
    move_latest(Store(store), "digits", workspace.run.run_id)
    return store


@pytest.fixture
def store(drawn, tmp_path):
    """A copy of the published run."""
    return Path(shutil.copytree(drawn, tmp_path / "store"))


def rows_of(store, run_id=None):
    run_id = run_id or read_latest(Store(store), "digits").run_id
    return pd.read_parquet(store / "digits" / "runs" / run_id / "metadata.parquet").set_index("key")


def published(rows):
    return set(rows.index[rows["kept"] & (rows["source"] == "synthetic")])


def write_decisions(store, folder, entries, **changes):
    content = {"format": "minority-decisions-1", "dataset": "digits", "decided_by": "Ada", "decisions": entries}
    content["run_id"] = read_latest(Store(store), "digits").run_id
    file = folder / "decisions.json"
    file.write_text(json.dumps(content | changes))
    return file


def make_version(store, folder, entries, **changes):
    """Publishes what is left after these decisions, without its report; gives the manifest's file."""
    file = write_decisions(store, folder, entries, **changes)
    decisions = read_decisions(file.read_bytes(), name=str(file))
    run = open_published(str(store / "digits" / "runs" / decisions.run_id / "manifest.json"))
    return Path(publish_version(run, decisions, store=Store(store)))


def some_refused(rows, count=3):
    """Published keys of the group that has the most candidates waiting for a place."""
    waiting = rows.loc[rows["reason"] == "quota full", "group"].value_counts()
    kept = rows[rows["kept"] & (rows["source"] == "synthetic") & (rows["group"] == waiting.index[0])]
    assert waiting.iloc[0] >= count
    return sorted(kept.index)[:count]


def test_what_was_refused_is_not_published_and_its_places_are_filled_again(store, tmp_path):
    before = rows_of(store)
    refused = some_refused(before)

    summary = review_run(
        "digits", write_decisions(store, tmp_path, {key: {"decision": "bad"} for key in refused}), store=str(store)
    )

    after = rows_of(store)
    assert published(before) - published(after) == set(refused)
    filled = published(after) - published(before)
    assert len(filled) == len(refused) == summary.filled == summary.refused
    assert set(before.loc[list(filled), "reason"]) == {"quota full"}
    assert after.loc[refused, "reason"].eq("refused in review").all()
    assert verify(summary.report.manifest) == []
    report = Path(summary.report.report).read_text()
    assert "refused in review" in report
    assert "minority review digits --decisions" in report
    assert refused[0] in Path(summary.report.gallery).read_text()
    # Nothing but the choice, the review and the places in shards has changed.
    same = [name for name in before.columns if name not in ("kept", "reason", "shard", "random_projection")]
    pd.testing.assert_frame_equal(before[same], after[same])


def test_decision_reason_and_person_are_columns_and_the_manifest_names_the_version_it_came_from(store, tmp_path):
    before, old = rows_of(store), read_latest(Store(store), "digits").run_id
    bad, good = some_refused(before)[0], before.index[before["reason"] == "quota full"][0]
    entries = {bad: {"decision": "bad", "reason": "two digits"}, good: {"decision": "good", "decided_by": "Grace"}}

    manifest = make_version(store, tmp_path, entries)

    after = rows_of(store)
    assert after.loc[bad, ["decision", "decision_reason", "decided_by"]].tolist() == ["bad", "two digits", "Ada"]
    assert after.loc[good, ["decision", "decision_reason", "decided_by"]].tolist() == ["good", "", "Grace"]
    assert after.drop(index=[bad, good])["decision"].isna().all()
    review = Manifest.from_json(manifest.read_bytes()).review
    assert (review.version_of, review.units_of, review.decided_by) == (old, old, ["Ada", "Grace"])
    assert Manifest.from_json((store / "digits" / "runs" / old / "manifest.json").read_bytes()).review is None
    assert "Candidates were looked at by Ada, Grace" in manifest.with_name("README.md").read_text()


def test_a_candidate_that_was_called_good_is_the_first_to_fill_a_place(store, tmp_path):
    before = rows_of(store)
    refused = some_refused(before, count=1)[0]
    waiting = before[(before["reason"] == "quota full") & (before["group"] == before.loc[refused, "group"])].index
    for good in (waiting[0], waiting[-1]):
        entries = {refused: {"decision": "bad"}, good: {"decision": "good"}}

        make_version(store, tmp_path, entries, run_id=before_run(store))

        assert published(rows_of(store)) - published(before) == {good}


def before_run(store):
    """The run that was drawn, whatever versions of it there are."""
    return next(path.parent.name for path in (store / "digits" / "runs").glob("*/units"))


def test_a_good_mark_lets_nothing_past_a_filter(store, tmp_path):
    before = rows_of(store)
    lost = before.index[before["reason"] == "label lost"][0]

    make_version(store, tmp_path, {lost: {"decision": "good"}})

    assert published(rows_of(store)) == published(before)
    assert rows_of(store).loc[lost, "reason"] == "label lost"


def test_the_same_review_again_changes_nothing(store, tmp_path):
    entries = {some_refused(rows_of(store))[0]: {"decision": "bad"}}
    first = make_version(store, tmp_path, entries)
    content = first.read_bytes()

    again = make_version(store, tmp_path, entries, run_id=before_run(store))

    assert again == first
    assert again.read_bytes() == content
    assert len(list((store / "digits" / "runs").iterdir())) == 2


def test_a_version_can_be_reviewed_and_what_was_refused_before_stays_out(store, tmp_path):
    before = rows_of(store)
    first, second = some_refused(before, count=2)
    make_version(store, tmp_path, {first: {"decision": "bad"}})
    middle = read_latest(Store(store), "digits").run_id

    manifest = make_version(store, tmp_path, {second: {"decision": "bad"}})

    after = rows_of(store)
    assert not {first, second} & published(after)
    assert after.loc[[first, second], "decision"].tolist() == ["bad", "bad"]
    review = Manifest.from_json(manifest.read_bytes()).review
    assert (review.version_of, review.units_of) == (middle, before_run(store))
    images = open_published(str(manifest)).images(sorted(published(after)))
    shown = read_published(str(manifest), source="synthetic")
    place = {key: i for i, key in enumerate(shown.source_ids)}
    assert (shown.images([place[key] for key in sorted(published(after))]) == images).all()


@pytest.mark.parametrize(
    ("entries", "changes", "said"),
    [
        ({"s99999999": {"decision": "bad"}}, {}, "decides on 's99999999', which run .* does not have"),
        ({"real-000000": {"decision": "bad"}}, {}, "decides on real-000000, which is no candidate"),
        ({"s00000000": {"decision": "awful"}}, {}, "say good or bad"),
        ({"s00000000": {"decision": "bad", "why": "?"}}, {}, "unknown field 'why' at s00000000"),
        ({"s00000000": {"decision": "bad", "reason": "\ud800"}}, {}, "no text of up to 2000 characters"),
        ({"s00000000": {"decision": "bad"}}, {"decided_by": ""}, "does not tell who decided on s00000000"),
        ({"s00000000": {"decision": "bad"}}, {"dataset": "celeba"}, "is about celeba, not digits"),
        ({"s00000000": {"decision": "bad"}}, {"run_id": "0123"}, "does not exist, but was decided on"),
        ({}, {"format": "other"}, "has the format 'other', not 'minority-decisions-1'"),
    ],
)
def test_decisions_that_cannot_be_followed_are_refused_in_one_line(drawn, tmp_path, entries, changes, said):
    runs = sorted(path.name for path in (drawn / "digits" / "runs").iterdir())

    with pytest.raises(InputError, match=said) as refusal:
        review_run("digits", write_decisions(drawn, tmp_path, entries, **changes), store=str(drawn))

    assert "\n" not in str(refusal.value)
    assert sorted(path.name for path in (drawn / "digits" / "runs").iterdir()) == runs


def test_who_decided_can_be_told_over_what_the_file_says(drawn, tmp_path):
    file = write_decisions(drawn, tmp_path, {"s00000000": {"decision": "bad", "decided_by": "Grace"}}, decided_by=None)

    decisions = read_decisions(file.read_bytes(), name="decisions.json", decided_by="Lin")

    assert decisions.people == ["Lin"]


def test_candidates_that_were_cleaned_away_are_missed_in_one_line(store, tmp_path):
    file = write_decisions(store, tmp_path, {some_refused(rows_of(store))[0]: {"decision": "bad"}})
    shutil.rmtree(store / "digits" / "runs" / before_run(store) / "units")

    with pytest.raises(InputError, match=r"units lacks \d+ of \d+ units, .*minority clean"):
        review_run("digits", file, store=str(store))

    assert [path.name for path in (store / "digits" / "runs").iterdir()] == [read_latest(Store(store), "digits").run_id]
