import errno

import pytest
from prefect.client.schemas.objects import State, StateType

from datasets.store import Store, StoreError
from tasks.errors import InputError
from tasks.failures import is_transient


def failed_with(error):
    return State(type=StateType.FAILED, data=error)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.EAGAIN])
def test_a_store_that_does_not_answer_is_worth_another_attempt(number):
    assert is_transient(None, None, failed_with(OSError(number, "no answer")))


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
