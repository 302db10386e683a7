"""Timing what runs on a machine that others use as well."""

import time

from minority.runtime.timing import seconds_of, speed_up


def test_waiting_for_others_does_not_count_on_a_cpu():
    calls = []

    def work():
        calls.append(1)
        time.sleep(0.05)

    assert seconds_of(work, device="cpu") < 0.04
    assert len(calls) == 4


def compute():
    """Twenty milliseconds of a thread, which no other thread of Python shares."""
    began = time.thread_time()
    while time.thread_time() - began < 0.02:
        sum(range(1000))


def test_computing_counts():
    assert 0.01 < seconds_of(compute, device="cpu") < 0.1


def test_threads_that_wait_for_one_interpreter_gain_nothing():
    assert speed_up(compute, threads=1) == 1
    assert 1 <= speed_up(compute, threads=4) < 2  # 4, were they independent and the cores enough
