"""What `clean` finds and removes, on a folder and on S3, and what it must never touch."""

import os
import platform
import time

import pytest

from datasets.runs.cleaning import find_leftovers, remove_leftover
from datasets.runs.latest import move_latest
from datasets.runs.leases import LEASE_SECONDS, drop_lease, renew_lease
from datasets.runs.publish import publish
from datasets.runs.runs import open_run
from datasets.runs.verify import verify
from datasets.storage.inventory import inventory
from datasets.storage.store import Store

DAY = 86400.0


def begin(store, run_id):
    """An unpublished run with one finished unit and a half-written one."""
    run = open_run(store, "pets", run_id, recipe="r", config={})
    for name in ("u0.tar", "u0.parquet", "u0.json", "u1.tar"):
        run.write(f"units/{name}", b"x" * 10)
    return run


def grow_old(folder, seconds):
    then = time.time() - seconds
    for path in folder.rglob("*"):
        os.utime(path, (then, then))


def paths(leftovers):
    return {(left.kind, left.path) for left in leftovers}


@pytest.fixture
def published(small_run):
    """Publishes a small run as pets/runs/<run id>, with the staging that a real one has. Returns its store."""

    def make(store, run_id):
        run = begin(store, run_id)
        rows = small_run["rows"](6)
        samples = small_run["samples"](rows, small_run["images"](6))
        publish(run, facts=small_run["facts"], samples=samples, metadata=rows, samples_per_shard=4)
        move_latest(store, "pets", run_id)
        return run

    return make


def clean(store, *, older_than):
    return [
        left
        for left in find_leftovers(store, older_than=older_than)
        if remove_leftover(store, left, older_than=older_than)
    ]


def test_an_abandoned_run_goes_with_all_that_is_in_it(tmp_path):
    store = Store(tmp_path)
    begin(store, "old")
    with store.child("pets/runs/old").locked("units"):
        pass
    grow_old(tmp_path, 8 * DAY)

    (found,) = find_leftovers(store, older_than=7 * DAY)

    assert (found.kind, found.path, len(found.files)) == ("abandoned run", "pets/runs/old", 5)
    assert found.bytes == sum(facts.bytes for facts in inventory(store))
    assert found.age == pytest.approx(8 * DAY, abs=60)
    assert store.list() != []  # finding touches nothing
    assert paths(clean(store, older_than=7 * DAY)) == {("abandoned run", "pets/runs/old")}
    assert not (tmp_path / "pets" / "runs" / "old").exists()


def test_a_run_that_was_written_to_lately_stays(tmp_path):
    begin(Store(tmp_path), "busy")
    grow_old(tmp_path, 8 * DAY)
    Store(tmp_path).write("pets/runs/busy/units/u2.tar", b"new")

    assert find_leftovers(Store(tmp_path), older_than=7 * DAY) == []


def test_a_run_whose_lease_is_renewed_stays_whatever_its_age(tmp_path):
    store = Store(tmp_path)
    run = begin(store, "alive")
    grow_old(tmp_path, 8 * DAY)
    renew_lease(run)

    assert find_leftovers(store, older_than=0) == []
    drop_lease(run)
    assert paths(find_leftovers(store, older_than=0)) == {("abandoned run", "pets/runs/alive")}


def test_the_lease_of_a_killed_process_grows_old(tmp_path):
    renew_lease(begin(Store(tmp_path), "killed"))
    grow_old(tmp_path, LEASE_SECONDS + 60)

    (found,) = find_leftovers(Store(tmp_path), older_than=0)

    assert "pets/runs/killed/lease.json" in found.files


def test_a_run_that_came_to_life_after_it_was_found_is_not_removed(tmp_path):
    store = Store(tmp_path)
    run = begin(store, "back")
    grow_old(tmp_path, 8 * DAY)
    (found,) = find_leftovers(store, older_than=7 * DAY)
    renew_lease(run)

    assert not remove_leftover(store, found, older_than=7 * DAY)
    assert len(run.list()) == 6


def test_of_a_published_run_only_the_staging_goes_and_readers_see_no_change(tmp_path, published):
    store = Store(tmp_path)
    run = published(store, "done")
    before = {path: store.read(path) for path in store.list() if "/units/" not in path}
    grow_old(tmp_path, 8 * DAY)

    (found,) = clean(store, older_than=7 * DAY)

    assert (found.kind, len(found.files)) == ("staging of a published run", 4)
    assert {path: store.read(path) for path in store.list()} == before
    assert verify(run.url("manifest.json")) == []
    assert find_leftovers(store, older_than=0) == []


@pytest.mark.parametrize(
    "name",
    [
        "pets/runs/UPPER/run.json",
        "pets/runs/.hidden/run.json",
        "Pets/runs/a/run.json",
        "pets/other/a/run.json",
        "run.json",
    ],
)
def test_what_stands_under_a_name_that_is_none_of_ours_is_left_alone(tmp_path, name):
    Store(tmp_path).write(name, b"{}")
    grow_old(tmp_path, 100 * DAY)

    assert clean(Store(tmp_path), older_than=0) == []
    assert Store(tmp_path).exists(name)


def test_a_folder_that_no_run_began_is_left_alone(tmp_path):
    Store(tmp_path).write("pets/runs/mine/notes.txt", b"not a run")

    assert find_leftovers(Store(tmp_path), older_than=0) == []


def test_torn_files_of_dead_writers_go_and_those_of_the_living_stay(tmp_path):
    store = Store(tmp_path)
    dead = tmp_path / "pets" / ".tmp-elsewhere-1-ab"
    living = tmp_path / "pets" / f".tmp-{platform.node()}-{os.getpid()}-ab"
    store.write(".writable-123-0a1b2c3d", b"probe")
    store.write("pets/latest.json", b"{}")
    for path in (dead, living):
        path.write_bytes(b"half")
    grow_old(tmp_path, 2 * DAY)
    os.utime(living)

    assert paths(clean(store, older_than=DAY)) == {
        ("torn file", ".writable-123-0a1b2c3d"),
        ("torn file", "pets/.tmp-elsewhere-1-ab"),
    }
    assert (dead.exists(), living.exists(), store.exists("pets/latest.json")) == (False, True, True)


def test_a_cleaner_that_dies_leaves_a_run_that_can_be_cleaned_again(tmp_path, small_run):
    begin(Store(tmp_path), "old")
    grow_old(tmp_path, 8 * DAY)
    (found,) = find_leftovers(Store(tmp_path), older_than=7 * DAY)

    for changes in range(len(found.files)):
        with pytest.raises(small_run["killed"]):
            remove_leftover(small_run["dying_store"](tmp_path, [changes and 1]), found, older_than=0)
        assert paths(find_leftovers(Store(tmp_path), older_than=0)) == {("abandoned run", "pets/runs/old")}

    assert clean(Store(tmp_path), older_than=0) != []
    assert Store(tmp_path).list() == []


def test_on_s3_runs_and_unfinished_uploads_are_found_and_removed(bucket, published):
    store = Store(bucket)
    published(store, "done")
    begin(store, "old")
    renew_lease(begin(store, "alive"))
    files, base = store.backend
    name, _, prefix = base.partition("/")
    for key in (f"{prefix}/pets/runs/old/units/u9.tar", "elsewhere/u9.tar"):
        files.call_s3("create_multipart_upload", Bucket=name, Key=key)
    kept = {path for path in store.list() if "/old/" not in path and not path.startswith("pets/runs/done/units/")}

    # This server says of every upload that it was begun in 2010.
    assert {kind for kind, _ in paths(find_leftovers(store, older_than=DAY))} == {"torn file"}
    assert paths(clean(store, older_than=0)) == {
        ("abandoned run", "pets/runs/old"),
        ("staging of a published run", "pets/runs/done"),
        ("torn file", "pets/runs/old/units/u9.tar"),
    }
    assert set(store.list()) == kept
    assert [upload["Key"] for upload in files.list_multipart_uploads(name)] == ["elsewhere/u9.tar"]
    assert verify(store.url("pets/runs/done/manifest.json")) == []
