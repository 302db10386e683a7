"""`minority clean` as an operator types it."""

import os
import time

import pytest
from typer.testing import CliRunner

from datasets.runs.leases import renew_lease
from datasets.runs.runs import open_run
from datasets.storage.store import Store
from flows.command_line import app


@pytest.fixture
def store(tmp_path):
    """A store with one run that was given up nine days ago, and one that somebody works on."""
    for run_id in ("given-up", "alive"):
        run = open_run(Store(tmp_path), "pets", run_id, recipe="r", config={})
        run.write("units/u0.tar", b"x" * 5000)
    then = time.time() - 9 * 86400
    for path in tmp_path.rglob("*"):
        os.utime(path, (then, then))
    renew_lease(Store(tmp_path).child("pets/runs/alive"))
    return tmp_path


def clean(*args):
    return CliRunner().invoke(app, ["clean", *map(str, args)])


def test_by_default_it_only_tells(store):
    before = Store(store).list()

    told = clean("--store", store)

    assert told.exit_code == 0
    assert told.output.splitlines() == [
        "would go: abandoned run pets/runs/given-up, 2 files, 5.14 kB, untouched for 9.0 days",
        "1 found, 5.14 kB; nothing was touched: --delete removes them.",
    ]
    assert Store(store).list() == before


def test_asked_to_it_removes_what_it_told_and_nothing_else(store):
    told = clean("--store", store, "--delete")

    assert told.output.splitlines()[-1] == "1 of 1 removed, 5.14 kB freed."
    assert {path.split("/")[2] for path in Store(store).list()} == {"alive"}
    assert clean("--store", store).output == "0 found, 0 B; nothing was touched: --delete removes them.\n"


def test_a_younger_leftover_is_found_when_asked_for(store):
    assert "0 found" in clean("--store", store, "--older-than", "10d").output
    assert "1 found" in clean("--store", store, "--older-than", "200h").output


@pytest.mark.parametrize("age", ["7", "d", "-1d", "7 days", "1.5d", ""])
def test_an_age_that_is_none_is_refused_in_one_line(store, age):
    told = clean("--store", store, "--older-than", age)

    assert told.exit_code == 2
    assert told.stderr == f"error: --older-than must be a whole number and s, m, h or d, e.g. 7d, got {age!r}.\n"


def test_a_store_that_is_none_is_refused_in_one_line():
    told = clean("--store", "nowhere://x")

    assert told.exit_code == 2
    assert told.stderr.startswith("error: store 'nowhere://x' cannot be opened")
