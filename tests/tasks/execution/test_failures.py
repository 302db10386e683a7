import asyncio
import errno
import pickle

import pytest
from prefect.client.schemas.objects import State, StateType

from datasets.storage.store import Store, StoreError
from minority.runtime.memory import OutOfMemoryError
from tasks.errors import InputError
from tasks.execution.failures import TRIED_AGAIN, ends_the_run, is_transient


def failed_with(error):
    return State(type=StateType.FAILED, data=error)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.EAGAIN])
def test_a_store_that_does_not_answer_is_worth_another_attempt(number):
    assert is_transient(None, None, failed_with(OSError(number, "no answer")))


def test_it_is_worth_one_in_a_notebook_too_where_an_event_loop_runs():
    async def cell():
        return is_transient(None, None, failed_with(OSError(errno.EIO, "no answer")))

    assert asyncio.run(cell())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOTDIR])
def test_a_full_or_forbidden_store_is_not(number):
    assert not is_transient(None, None, failed_with(OSError(number, "it stays so")))


@pytest.mark.parametrize("error", [InputError("a wrong setting"), ValueError("x"), MemoryError(), RuntimeError("x")])
def test_neither_is_a_wrong_setting_nor_a_bug(error):
    assert not is_transient(None, None, failed_with(error))


def test_what_a_store_raises_keeps_the_number_that_decides(tmp_path):
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(StoreError) as caught:
        Store(tmp_path / "file").write("run.json", b"{}")

    assert not is_transient(None, None, failed_with(caught.value))
    assert ends_the_run(caught.value)
    assert ends_the_run(pickle.loads(pickle.dumps(caught.value)))  # the same on its way from another process
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize(
    "error", [InputError("x"), ValueError("x"), OutOfMemoryError("x"), OSError(errno.ENOSPC, "full")]
)
def test_a_reason_that_all_units_share_ends_the_run(error):
    assert ends_the_run(error)


@pytest.mark.parametrize("error", [ZeroDivisionError(), RuntimeError("x"), OSError(errno.ETIMEDOUT, "no answer")])
def test_one_unit_s_own_trouble_does_not(error):
    assert not ends_the_run(error)


def test_attempts_come_later_and_later_and_not_all_at_once():
    from prefect import task

    tried = task(lambda: None, **TRIED_AGAIN)

    assert tried.retry_delay_seconds == [2, 4, 8, 16]
    assert tried.retry_jitter_factor > 0
