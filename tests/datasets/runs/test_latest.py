import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest

from datasets.runs.latest import Latest, move_latest, read_latest
from datasets.storage.canonical import canonical_json
from datasets.storage.checked import DamagedError, parse_checked_json
from datasets.storage.store import Store, StoreError


def publish_as(store, run_id):
    store.write(f"pets/runs/{run_id}/manifest.json", b"{}")
    return move_latest(store, "pets", run_id)


def test_the_pointer_names_the_last_run_that_was_published_first(store):
    assert read_latest(store, "pets") is None

    first = publish_as(store, "zebra")
    second = publish_as(store, "ant")

    assert first == Latest(run_id="zebra", manifest="runs/zebra/manifest.json", sequence=1)
    assert second.sequence == 2
    assert read_latest(store, "pets") == second
    assert parse_checked_json(store.read("pets/latest.json"), name="latest.json") == {
        "run_id": "ant",
        "manifest": "runs/ant/manifest.json",
        "sequence": 2,
    }


def test_publishing_a_run_again_moves_nothing_back(store):
    publish_as(store, "one")
    second = publish_as(store, "two")

    assert publish_as(store, "one") == second
    assert publish_as(store, "two") == second
    assert read_latest(store, "pets") == second


def test_a_run_without_a_manifest_is_not_pointed_to(store):
    with pytest.raises(ValueError, match=r"run one of pets has no manifest in .*; publish it first"):
        move_latest(store, "pets", "one")
    assert read_latest(store, "pets") is None


def test_runs_published_at_once_get_numbers_of_their_own_and_the_pointer_only_rises(tmp_path):
    store = Store(tmp_path)
    seen = []

    def watch():
        while not seen or seen[-1] < 12:
            latest = read_latest(store, "pets")
            seen.append(latest.sequence if latest else 0)

    with ThreadPoolExecutor(5) as pool:
        watching = pool.submit(watch)
        list(pool.map(lambda number: publish_as(store, f"run-{number}"), range(12)))
        watching.result(timeout=30)

    numbers = [json.loads(store.read(path))["sequence"] for path in store.list("pets/published")]
    assert numbers == list(range(1, 13))
    assert seen == sorted(seen)


def test_a_damaged_pointer_is_mended_and_a_damaged_history_named(store):
    first = publish_as(store, "one")
    store.write("pets/latest.json", b"{")

    assert publish_as(store, "one") == first
    assert read_latest(store, "pets") == first

    for content in (b"{", b"{}", b'{"run_id": 1, "manifest": "", "sequence": 1}'):
        store.write("pets/published/000001.json", content)
        with pytest.raises(ValueError, match=r"pets/published/000001\.json .*damaged"):
            publish_as(store, "two")


def flipped(data, bit):
    broken = bytearray(data)
    broken[bit // 8] ^= 1 << bit % 8
    return bytes(broken)


def test_no_flipped_bit_of_history_or_pointer_moves_anything_back(tmp_path):
    store = Store(tmp_path)
    publish_as(store, "one")
    latest = publish_as(store, "two")
    pointer, entry = store.read("pets/latest.json"), store.read("pets/published/000002.json")

    for bit in range(0, 8 * len(pointer), 3):
        store.write("pets/latest.json", flipped(pointer, bit))
        assert read_latest(store, "pets") == latest
    store.write("pets/latest.json", pointer)
    for bit in range(0, 8 * len(entry), 3):
        store.write("pets/published/000002.json", flipped(entry, bit))
        with pytest.raises(DamagedError, match=r"pets/published/000002\.json .*remove it \(the run gets a new number"):
            move_latest(store, "pets", "one")
        assert read_latest(store, "pets") == latest


@pytest.mark.parametrize("place", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_in_the_pointers_place_ends_nothing_in_a_loop(tmp_path, place):
    store = Store(tmp_path)
    store.write("pets/runs/one/manifest.json", b"{}")
    place(tmp_path / "pets" / "latest.json")

    with pytest.raises(StoreError, match=r"pets/latest\.json cannot be .*(a folder stands|it is a pipe)"):
        move_latest(store, "pets", "one")


def test_a_number_under_another_name_is_damage(tmp_path):
    store = Store(tmp_path)
    publish_as(store, "one")
    store.write("pets/published/000007.json", store.read("pets/published/000001.json"))

    with pytest.raises(DamagedError, match=r"published/000007\.json says number 1"):
        publish_as(store, "two")


def test_pointer_and_history_of_earlier_versions_are_read_as_they_are(tmp_path):
    store = Store(tmp_path)
    old = Latest(run_id="one", manifest="runs/one/manifest.json", sequence=1)
    for path in ("pets/latest.json", "pets/published/000001.json"):
        store.write(path, canonical_json(asdict(old)))

    assert read_latest(store, "pets") == old
    assert publish_as(store, "two").sequence == 2


def test_a_run_that_died_before_the_pointer_is_pointed_to_by_the_next_call(tmp_path, small_run):
    Store(tmp_path).write("pets/runs/one/manifest.json", b"{}")

    with pytest.raises(small_run["killed"]):
        move_latest(small_run["dying_store"](tmp_path, [1]), "pets", "one")

    assert read_latest(Store(tmp_path), "pets") is None
    assert move_latest(Store(tmp_path), "pets", "one").sequence == 1
