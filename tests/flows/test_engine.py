import pytest
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from tasks.engine import fan_out, task_runner
from tasks.errors import RunIncompleteError
from tasks.failures import is_transient

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
