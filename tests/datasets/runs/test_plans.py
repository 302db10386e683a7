import numpy as np
import pytest

from datasets.runs.plans import keep_plan, read_plan
from datasets.storage.store import Store

INDICES, GROUPS = np.arange(100, 160), np.arange(60, dtype=np.int32) % 7


def assert_plan(found, indices=INDICES, groups=GROUPS):
    np.testing.assert_array_equal(found[0], indices)
    np.testing.assert_array_equal(found[1], groups)


def test_a_plan_is_read_as_it_was_stored(store):
    assert read_plan(store, "minority-00") is None

    kept = keep_plan(store, "minority-00", indices=INDICES, groups=GROUPS)

    assert_plan(kept)
    assert_plan(read_plan(store, "minority-00"))


def test_a_plan_that_lies_there_stands(store):
    keep_plan(store, "minority-00", indices=INDICES, groups=GROUPS)

    kept = keep_plan(store, "minority-00", indices=INDICES + 1, groups=GROUPS)

    assert_plan(kept)
    assert_plan(read_plan(store, "minority-00"))


@pytest.mark.parametrize("damage", ["cut", "empty", "another table"])
def test_a_damaged_plan_does_not_count_and_is_written_again(store, damage):
    keep_plan(store, "minority-00", indices=INDICES, groups=GROUPS)
    path = "plans/minority-00.parquet"
    content = store.read(path)
    other = content.replace(b"index", b"inbox")
    store.write(path, {"cut": content[:-9], "empty": b"", "another table": other}[damage])

    assert read_plan(store, "minority-00") is None

    assert_plan(keep_plan(store, "minority-00", indices=INDICES, groups=GROUPS))
    assert store.read(path) == content


def test_a_flipped_bit_never_makes_another_plan_of_it(store):
    keep_plan(store, "minority-00", indices=INDICES, groups=GROUPS)
    path = "plans/minority-00.parquet"
    content = store.read(path)

    refused = 0
    for place in range(0, len(content), 5):
        store.write(path, content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        found = read_plan(store, "minority-00")
        refused += found is None
        if found is not None:
            assert_plan(found)

    assert refused > 20  # the others lie in what nothing is read from


def test_equal_plans_are_equal_bytes(tmp_path):
    for folder in "ab":
        keep_plan(Store(tmp_path / folder), "plain-00", indices=INDICES, groups=GROUPS)

    first, second = (Store(tmp_path / folder).read("plans/plain-00.parquet") for folder in "ab")
    assert first == second


def test_a_million_samples_are_a_small_file(tmp_path):
    groups = (np.arange(1_000_000) % 13 % 10).astype(np.int32)

    keep_plan(Store(tmp_path), "minority-00", indices=np.arange(1_000_000), groups=groups)

    assert (tmp_path / "plans" / "minority-00.parquet").stat().st_size < 1_000_000


@pytest.mark.parametrize("name", ["", "../run", "A", "a/b"])
def test_a_name_that_is_no_file_name_is_refused(store, name):
    with pytest.raises(ValueError, match=r"plan '.*' is not allowed"):
        keep_plan(store, name, indices=INDICES, groups=GROUPS)
