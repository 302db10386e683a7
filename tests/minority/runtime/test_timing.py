"""Timing what runs on a machine that others use as well."""

import time

from minority.runtime.timing import seconds_of


def test_waiting_for_others_does_not_count_on_a_cpu():
    calls = []

    def work():
        calls.append(1)
        time.sleep(0.05)

    assert seconds_of(work, device="cpu") < 0.04
    assert len(calls) == 4


def test_computing_counts():
    def work():
        began = time.process_time()
        while time.process_time() - began < 0.02:
            sum(range(1000))

    assert 0.01 < seconds_of(work, device="cpu") < 0.1
