from concurrent.futures import ThreadPoolExecutor

import pytest

from datasets.runs.runs import RecipeMismatchError, open_run
from datasets.storage.canonical import canonical_json
from datasets.storage.checked import DamagedError
from datasets.storage.store import Store


def test_a_run_begins_once_and_can_be_come_back_to(store):
    run = open_run(store, "digits", "first", recipe="aaa", config={"seed": 0})
    again = open_run(store, "digits", "first", recipe="aaa", config={"seed": 0})

    assert run.root == again.root == store.url("digits/runs/first")
    assert run.list() == ["run.json"]


def test_a_run_of_another_recipe_is_refused_and_left_alone(store):
    run = open_run(store, "digits", "first", recipe="811a1fa753a8", config={})
    content = run.read("run.json")

    with pytest.raises(
        RecipeMismatchError,
        match="digits/runs/first holds samples of recipe 811a1fa753a8, this run is recipe 3b34d8e1a725; choose",
    ):
        open_run(store, "digits", "first", recipe="3b34d8e1a725", config={})

    assert run.read("run.json") == content


def test_of_two_recipes_at_once_one_is_refused(store):
    def begin(recipe):
        try:
            return open_run(store, "digits", "first", recipe=recipe, config={"recipe": recipe}).root
        except RecipeMismatchError:
            return None

    with ThreadPoolExecutor(2) as pool:
        begun = list(pool.map(begin, ["aaa", "bbb"]))

    assert sorted(root is None for root in begun) == [False, True]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"config": {}}'])
def test_a_damaged_run_file_is_named(store, content):
    store.write("digits/runs/first/run.json", content)

    with pytest.raises(ValueError, match=r"digits/runs/first/run\.json .*damaged"):
        open_run(store, "digits", "first", recipe="aaa", config={})


def test_no_flipped_bit_of_the_run_file_passes(tmp_path):
    store = Store(tmp_path)
    open_run(store, "digits", "first", recipe="aaa", config={"seed": 0})
    sound = store.read("digits/runs/first/run.json")

    for bit in range(8 * len(sound)):
        broken = bytearray(sound)
        broken[bit // 8] ^= 1 << bit % 8
        store.write("digits/runs/first/run.json", bytes(broken))
        with pytest.raises(DamagedError, match=r"first/run\.json is not what its checksum says; .*remove it and run"):
            open_run(store, "digits", "first", recipe="aaa", config={"seed": 0})


def test_a_run_file_of_an_earlier_version_is_read(store):
    store.write("digits/runs/first/run.json", canonical_json({"recipe": "aaa", "config": {}}))

    open_run(store, "digits", "first", recipe="aaa", config={})
    with pytest.raises(RecipeMismatchError, match="holds samples of recipe aaa, this run is recipe bbb; choose"):
        open_run(store, "digits", "first", recipe="bbb", config={})


def test_other_real_images_are_told_as_the_cause(store):
    open_run(store, "digits", "first", recipe="aaa", config={}, real_digest="0" * 64)

    with pytest.raises(RecipeMismatchError, match="the real images are not those that it was begun with; choose"):
        open_run(store, "digits", "first", recipe="bbb", config={}, real_digest="1" * 64)


@pytest.mark.parametrize("run_id", ["", "..", "-a", "A", "a b", "a/b", "x" * 65])
def test_a_run_id_that_is_no_file_name_is_refused(store, run_id):
    with pytest.raises(ValueError, match=r"run id '.*' is not allowed"):
        open_run(store, "digits", run_id, recipe="aaa", config={})


def test_settings_that_are_no_json_are_refused(store):
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        open_run(store, "digits", "first", recipe="aaa", config={"path": object()})
