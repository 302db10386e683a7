"""The study's trainings, one file each, so that a run that is cut short goes on where it was."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from heapq import heappop, heappush
from itertools import count
from multiprocessing import get_context
from pathlib import Path

import torch

from minority.downstream.arms import Arm
from minority.downstream.data import DownstreamData
from minority.downstream.jobs import Comparison, Job, Outcome
from minority.downstream.predictions import Predictions
from minority.downstream.settings import DownstreamSettings
from minority.downstream.trials import run_trial


class Study:
    """All trainings of one comparison.

    Args:
        comparison: Which there are.
        folder: Receives the predictions.
        device: Where to train.
    """

    def __init__(self, comparison: Comparison, folder: Path, *, device: str) -> None:
        self.comparison, self.folder, self.device = comparison, folder, device

    def path(self, job: Job) -> Path:
        """Where a training's predictions lie."""
        return self.folder / f"{self.comparison.name(job)}.npz"

    def read(self, job: Job) -> Predictions | None:
        """A training's predictions, or None where it is not done."""
        path = self.path(job)
        return Predictions.load(path) if path.is_file() else None

    def run(self, *, workers: int, deadline: float, say: Callable[[str], None]) -> Outcome:
        """Tune, choose and test, arm by arm; what is done already is read. Begins no training after the deadline."""
        self.folder.mkdir(parents=True, exist_ok=True)
        arms = {arm.name: (place, arm) for place, arm in enumerate(self.comparison.arms)}
        todo: list[tuple[int, int, Job, Path]] = []  # arms in order; of an arm, what was added first
        missing = {name: len(self._undone(self.comparison.tuning(arm))) for name, (_, arm) in arms.items()}
        order = count()

        def add(jobs: Sequence[Job]) -> None:
            for job in self._undone(jobs):
                heappush(todo, (arms[job.trial.arm.name][0], next(order), job, self.path(job)))

        def add_tests(arm: Arm) -> None:
            jobs = self.comparison.tests(arm, self.read)
            assert jobs is not None, "tuned"
            add(jobs)

        def finished(job: Job) -> None:
            name = job.trial.arm.name
            if job.part == "validation":
                missing[name] -= 1
                if missing[name] == 0:
                    add_tests(arms[name][1])

        for name, (_, arm) in arms.items():
            if missing[name]:
                add(self.comparison.tuning(arm))
            else:
                add_tests(arm)
        with _Pool(self.comparison.data, self.comparison.settings, self.device, workers) as pool:
            pool.work(todo, finished=finished, deadline=deadline, say=say)
        return self.comparison.outcome(self.read)

    def _undone(self, jobs: Sequence[Job]) -> list[Job]:
        return [job for job in jobs if not self.path(job).is_file()]


class _Pool:
    """Worker processes that hold the images; one worker means this process."""

    def __init__(self, data: DownstreamData, settings: DownstreamSettings, device: str, workers: int) -> None:
        self._workers = workers
        setup = (data, settings, device)
        self._executor: ProcessPoolExecutor | None = None
        if workers > 1:
            self._executor = ProcessPoolExecutor(
                workers, mp_context=get_context("spawn"), initializer=_begin_worker, initargs=setup
            )
        else:
            _begin_worker(*setup)

    def __enter__(self) -> "_Pool":
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def work(
        self,
        todo: list[tuple[int, int, Job, Path]],
        *,
        finished: Callable[[Job], None],
        deadline: float,
        say: Callable[[str], None],
    ) -> None:
        """Do the jobs of the heap, and those that `finished` adds to it."""
        start, done = time.monotonic(), 0
        running: dict[Future[None], Job] = {}
        say(f"{len(todo)} trainings to do, and those that follow from them")
        while True:
            while todo and len(running) < 2 * self._workers and time.monotonic() < deadline:
                job, path = heappop(todo)[2:]
                if self._executor is not None:
                    running[self._executor.submit(_do, job, path)] = job
                    continue
                _do(job, path)
                done += 1
                finished(job)
                _tell(done, todo, start, say)
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                future.result()
                done += 1
                finished(running.pop(future))
                _tell(done, todo, start, say)
        if done:
            say(f"{done} trainings done, {(time.monotonic() - start) / done:.2f} s each; {len(todo)} left undone")


def _tell(done: int, todo: Sequence[object], start: float, say: Callable[[str], None]) -> None:
    if done % 50 == 0:
        say(f"{done} trainings, {(time.monotonic() - start) / done:.2f} s each; {len(todo)} wait")


_worker: tuple[DownstreamData, DownstreamSettings, str] | None = None


def _begin_worker(data: DownstreamData, settings: DownstreamSettings, device: str) -> None:
    global _worker
    torch.set_num_threads(1)
    _worker = (data, settings, device)


def _do(job: Job, path: Path) -> None:
    assert _worker is not None, "begun first"
    data, settings, device = _worker
    found = run_trial(job.trial, job.seed, data, settings=settings, part=job.part, device=device)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        found.save(file)
    part.replace(path)
