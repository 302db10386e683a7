import contextvars
import threading

import pytest
import torch

from minority.diffusion.chain import Chain
from minority.diffusion.denoiser import Prediction
from minority.diffusion.schedule import NoiseSchedule
from minority.runtime.interruption import Interrupted, interruptible, stop_if_interrupted
from minority.runtime.memory import in_batches


class Work(threading.Thread):
    """Runs a function in a thread that takes part in the block it is started in; keeps how it ended."""

    def __init__(self, function):
        super().__init__(daemon=True)
        self._context, self._function, self.ended_by = contextvars.copy_context(), function, None
        self.start()

    def run(self):
        try:
            self._context.run(self._function)
        except BaseException as end:
            self.ended_by = type(end)


def forever(reached):
    def loop():
        while True:
            stop_if_interrupted()
            reached.set()

    return loop


def leave_by(error, work_of):
    """Starts the work in a block that is left by an error, and waits for it."""
    reached, started = threading.Event(), []

    def block():
        with interruptible():
            started.append(Work(work_of(reached)))
            assert reached.wait(30)
            raise error

    with pytest.raises(type(error)):
        block()
    started[0].join(30)
    return started[0]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("x")])
def test_work_ends_when_nobody_waits_for_it(error):
    assert leave_by(error, forever).ended_by is Interrupted


def test_a_batch_after_the_interruption_is_not_begun():
    def batches(reached):
        def work(part):
            reached.set()
            return part

        return lambda: in_batches(10**9, size=1, work=work)

    assert leave_by(KeyboardInterrupt(), batches).ended_by is Interrupted


def test_a_chain_ends_at_its_next_evaluation():
    schedule = NoiseSchedule.cosine(10)

    def walk(reached):
        def denoise(x_t, timestep, label):
            reached.set()
            return Prediction(eps=torch.zeros_like(x_t))

        def loop():
            while True:
                Chain(denoise, schedule, None).estimate(torch.zeros(1, 1, 4, 4), 3)

        return loop

    assert leave_by(KeyboardInterrupt(), walk).ended_by is Interrupted


def test_work_of_another_block_goes_on():
    reached, stop = threading.Event(), threading.Event()

    def loop():
        while not stop.is_set():
            stop_if_interrupted()
        reached.set()

    with interruptible():
        other = Work(loop)
        leave_by(KeyboardInterrupt(), forever)
        stop.set()
        other.join(30)

    assert reached.is_set()
    assert other.ended_by is None


def test_outside_of_a_block_nothing_is_ever_interrupted():
    stop_if_interrupted()
