from concurrent.futures import ThreadPoolExecutor

import pytest

from datasets.runs.runs import RecipeMismatchError, open_run


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


@pytest.mark.parametrize("run_id", ["", "..", "-a", "A", "a b", "a/b", "x" * 65])
def test_a_run_id_that_is_no_file_name_is_refused(store, run_id):
    with pytest.raises(ValueError, match=r"run id '.*' is not allowed"):
        open_run(store, "digits", run_id, recipe="aaa", config={})


def test_settings_that_are_no_json_are_refused(store):
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        open_run(store, "digits", "first", recipe="aaa", config={"path": object()})
