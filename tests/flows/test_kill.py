"""kill -9 at any moment, and the same command again: the published dataset is the one nobody disturbed."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from datasets.runs.verify import verify
from datasets.storage.store import Store

pytestmark = pytest.mark.system

KILLS_A_STORE = 7


def files_in(store):
    """How many files the store shows: it grows as the run goes on, whatever the machine's speed."""
    return sum(not name.startswith(".") for _, _, names in os.walk(store) for name in names)


def kill_when(store, pid, *, files, delay):
    """Kill -9 the run `delay` seconds after the store has so many files, unless it ends before."""
    while files_in(store) < files:
        if not Path("/proc", str(pid), "exe").exists():
            return
        time.sleep(0.001)
    time.sleep(delay)
    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [0, *(pytest.param(more, marks=pytest.mark.slow) for more in (1, 2, 3))])
def test_a_run_killed_anywhere_and_run_again_publishes_the_same_bytes(
    minority, tiny_overrides, as_options, undisturbed, contents, tmp_path, number
):
    rng = random.Random(number)
    whole, store = contents(undisturbed.store), tmp_path / "store"
    command = ["augment", "digits", "--store", store, *as_options(tiny_overrides)]
    kills, places = 0, []
    # One moment in each stretch of the run, so that every stage is hit: units, shards, table, pointer, report.
    stretch = len(whole) / KILLS_A_STORE
    for k in range(KILLS_A_STORE):
        # After a step forward at least, where there is one left, so that no kill only hits the imports.
        planned = max(int((k + rng.random()) * stretch), files_in(store) + 1)
        pid = minority.start(*command)
        kill_when(store, pid, files=min(planned, len(whole)), delay=rng.uniform(0, 0.1))
        ended = minority.finish()
        kills += ended.code == -signal.SIGKILL
        places.append(files_in(store))
        assert ended.code in (-signal.SIGKILL, 0), ended.stderr
        # What can be seen as a dataset is whole, at every moment.
        for manifest in store.rglob("manifest.json"):
            assert verify(str(manifest)) == []

    finished = minority(*command)

    assert (finished.code, finished.stderr) == (0, "")
    assert contents(store) == whole
    Store(store).clean_temporary()
    assert kills >= KILLS_A_STORE - 2
    assert min(places) < 2 * stretch
    assert max(places) > len(whole) * 0.8
