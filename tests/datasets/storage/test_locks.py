"""A held lock is told, bounded, and ends with its holder."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from datasets.storage import locks
from datasets.storage.locks import locked_folder

HOLD = """
import signal, sys, time
from pathlib import Path
from datasets.storage.locks import locked_folder

signal.signal(signal.SIGINT, signal.default_int_handler)
print('ready', flush=True)
with locked_folder(Path(sys.argv[1]), 'units'):
    print('held', flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]
    )
    assert [process.stdout.readline() for _ in range(2)] == ["ready\n", "held\n"]
    yield process
    process.kill()
    process.communicate()


def test_who_waits_says_for_whom_and_goes_on_when_the_holder_dies(holder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(locks, "_FIRST_LINE_SECONDS", 0.1)
    threading.Timer(0.5, holder.kill).start()

    with caplog.at_level(logging.WARNING), locked_folder(tmp_path, "units"):
        pass

    assert f"which process {holder.pid} on " in caplog.text
    assert len(caplog.records) == 1


def test_a_lock_that_is_held_for_ever_is_given_up_by_name(holder, tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "MOST_SECONDS", 0.2)

    with (
        pytest.raises(TimeoutError, match=rf"is held by process {holder.pid} on .* end that process"),
        locked_folder(tmp_path, "units"),
    ):
        pytest.fail("the lock was held twice")


def test_who_waits_can_be_interrupted(holder, tmp_path):
    waiter = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert waiter.stdout.readline() == "ready\n"
    time.sleep(0.5)  # it waits for the lock by now

    waiter.send_signal(signal.SIGINT)

    _, said = waiter.communicate(timeout=60)
    assert "KeyboardInterrupt" in said
    os.kill(holder.pid, 0)


def test_threads_of_one_process_hold_it_one_after_the_other(tmp_path):
    inside, most = [], []

    def work():
        with locked_folder(tmp_path, "units"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.02)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most == [1] * 5
