import time

import pytest
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from minority.runtime.interruption import stop_if_interrupted
from tasks.errors import InputError, RunIncompleteError
from tasks.execution.capacity import Demand, Workers
from tasks.execution.failures import is_transient
from tasks.execution.fan_out import fan_out, task_runner

pytestmark = pytest.mark.system

done = []


@task(cache_policy=NO_CACHE)
def divide(number):
    result = 12 / number
    done.append(number)
    return result


@flow(task_runner=task_runner())
def divide_all(numbers):
    calls = []
    fan_out(
        divide.submit, numbers, what="numbers", name=lambda number: f"n{number}", on_done=lambda *c: calls.append(c)
    )
    return calls


def test_progress_counts_every_item(prefect_api):
    assert divide_all([1, 2, 3]) == [(1, 3), (2, 3), (3, 3)]


def test_nothing_to_do_is_done(prefect_api):
    assert divide_all([]) == []


def test_one_lost_item_never_loses_the_rest(prefect_api):
    done.clear()

    with pytest.raises(RunIncompleteError) as caught:
        divide_all([1, 0, 4])

    assert sorted(done) == [1, 4]
    assert str(caught.value).startswith("1 of 3 numbers failed (n0); n0: division by zero.")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_of_many_failures_the_first_are_named(prefect_api):
    with pytest.raises(RunIncompleteError, match=r"7 of 7 numbers failed \(n0, n0, n0, n0, n0, \.\.\.\); n0: "):
        divide_all([0] * 7)


def test_only_what_may_pass_by_itself_is_tried_again(prefect_api):
    attempts = {"timeout": 0, "forbidden": 0}

    @task(retries=2, retry_delay_seconds=0, retry_condition_fn=is_transient, cache_policy=NO_CACHE)
    def store(error, name):
        attempts[name] += 1
        raise error

    @flow
    def both():
        futures = [
            store.submit(TimeoutError(110, "no answer"), "timeout"),
            store.submit(PermissionError(13, "no"), "forbidden"),
        ]
        for future in futures:
            future.wait()
        return "waited"

    both()

    assert attempts == {"timeout": 3, "forbidden": 1}


@pytest.fixture
def two_places(monkeypatch):
    monkeypatch.setattr("tasks.execution.capacity.os.cpu_count", lambda: 2)
    return Demand(device="cpu")


begun = []


@task(cache_policy=NO_CACHE)
def work(number, seconds):
    begun.append(number)
    time.sleep(seconds)
    return number


@task(cache_policy=NO_CACHE)
def wrong_setting(number):
    begun.append(number)
    if number == 3:
        raise InputError("the checkpoint is none")
    end = time.monotonic() + 60
    while number > 3 and time.monotonic() < end:
        stop_if_interrupted()
        time.sleep(0.01)


@flow(task_runner=task_runner())
def fan(submit, numbers, demand, results=None):
    fan_out(
        submit,
        numbers,
        what="numbers",
        name=str,
        on_done=lambda *c: None,
        demand=demand,
        on_result=(results.append if results is not None else lambda result: None),
    )


def test_ten_thousand_units_are_never_ten_thousand_tasks(prefect_api, two_places):
    results, submitted, at_once = [], [], []

    def submit(number):
        submitted.append(number)
        at_once.append(len(submitted) - len(results))
        return work.submit(number, 0.0)

    fan(submit, range(30), two_places, results)

    assert sorted(results) == list(range(30))
    assert max(at_once) == 2


def test_a_wrong_setting_ends_the_run_and_the_rest_is_not_begun(prefect_api, two_places):
    begun.clear()
    started = time.monotonic()

    with pytest.raises(
        RunIncompleteError, match=r"3 of 50 numbers failed .* rest were not begun: the checkpoint is no"
    ):
        fan(wrong_setting.submit, range(50), two_places)

    assert 3 in begun
    assert max(begun) <= 5  # what ran beside it
    assert time.monotonic() - started < 50  # and that was not waited for


def test_what_no_machine_has_is_refused_before_anything_is_begun(prefect_api):
    begun.clear()

    with pytest.raises(InputError, match=r"workers.gpus is 64 a unit"):
        fan(wrong_setting.submit, range(5), Demand(workers=Workers(gpus=64), device="cuda"))

    assert begun == []
