"""The study's trainings: every result in a file of its own, so that a run that is cut short goes on where it was."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from heapq import heappop, heappush
from itertools import count
from multiprocessing import get_context
from pathlib import Path

import torch

from minority.downstream.arms import Arm
from minority.downstream.data import DownstreamData, LabelledImages
from minority.downstream.predictions import Predictions
from minority.downstream.settings import DownstreamSettings
from minority.downstream.trials import Trial, choose_trial, run_trial, trials_for, tuning_seeds


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training: what, with which seed, judged on which part, and the file of its predictions."""

    trial: Trial
    seed: int
    part: str
    path: Path


@dataclass(frozen=True, eq=False, kw_only=True)
class Outcome:
    """What is there when the time is up.

    Attributes:
        chosen: Arm -> the trial that validation chose, with its predictions of the validation images by seed.
        tested: Arm -> predictions of the test images by seed; arms with fewer seeds than asked for are left out.
        unfinished: Arms that lack results.
    """

    chosen: dict[str, tuple[Trial, dict[int, Predictions]]] = field(default_factory=dict)
    tested: dict[str, dict[int, Predictions]] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)


class Study:
    """All trainings of one data set.

    Args:
        data: The images.
        settings: The budget.
        folder: Receives the predictions, one file a training.
        seeds: Trainings of the chosen trial of every arm that are tested.
        device: Where to train.
    """

    def __init__(
        self, data: DownstreamData, settings: DownstreamSettings, folder: Path, *, seeds: int, device: str
    ) -> None:
        self.data, self.settings, self.folder, self.seeds, self.device = data, settings, folder, seeds, device
        # Only what changes results names them.
        budget = {k: v for k, v in asdict(settings).items() if k not in ("record_steps", "tuning_seeds", "trials")}
        parts = (data.train, data.validation, data.test)
        self._digest = _digest(json.dumps(budget, sort_keys=True), *(_content(part) for part in parts))
        self._sources = {name: _content(images) for name, images in data.synthetic.items()}

    def job(self, trial: Trial, seed: int, part: str) -> Job:
        """A training and the place of its result."""
        source = self._sources[trial.arm.source] if trial.arm.source is not None else ""
        place = self.folder / f"{trial.key}-{_digest(self._digest, source)}-{part}-{seed}.npz"
        return Job(trial=trial, seed=seed, part=part, path=place)

    def run(self, arms: Sequence[Arm], *, workers: int, deadline: float, say: Callable[[str], None]) -> Outcome:
        """Tune, choose and test, arm by arm; what is done already is read. Begins no training after the deadline."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tuning = {arm.name: self._tuning(arm) for arm in arms}
        todo: list[tuple[int, int, Job]] = []  # arms in order; of an arm, what was added first
        missing = {name: sum(not job.path.is_file() for job in jobs) for name, jobs in tuning.items()}
        place = {arm.name: i for i, arm in enumerate(arms)}

        def add(jobs: Sequence[Job]) -> None:
            for job in jobs:
                if not job.path.is_file():
                    heappush(todo, (place[job.trial.arm.name], next(order), job))

        def finished(job: Job) -> None:
            name = job.trial.arm.name
            if job.part == "validation":
                missing[name] -= 1
                if missing[name] == 0:
                    add(self._tests(self._chosen(tuning[name])[0]))

        order = count()
        for name, jobs in tuning.items():
            add(jobs if missing[name] else self._tests(self._chosen(jobs)[0]))
        with _Pool(self.data, self.settings, self.device, workers) as pool:
            pool.work(todo, finished=finished, deadline=deadline, say=say)
        return self.outcome(tuning)

    def outcome(self, tuning: Mapping[str, Sequence[Job]]) -> Outcome:
        """Read what is there."""
        found = Outcome()
        for arm, jobs in tuning.items():
            if not all(job.path.is_file() for job in jobs):
                found.unfinished.append(arm)
                continue
            trial, validated = self._chosen(jobs)
            tests = self._tests(trial)
            if not all(job.path.is_file() for job in tests):
                found.unfinished.append(arm)
                continue
            found.chosen[arm] = (trial, validated)
            found.tested[arm] = {job.seed: Predictions.load(job.path) for job in tests}
        return found

    def _tuning(self, arm: Arm) -> list[Job]:
        return [
            self.job(trial, seed, "validation")
            for trial in trials_for(arm, self.settings)
            for seed in tuning_seeds(self.settings)
        ]

    def _tests(self, trial: Trial) -> list[Job]:
        return [self.job(trial, seed, "test") for seed in range(self.seeds)]

    def _chosen(self, jobs: Sequence[Job]) -> tuple[Trial, dict[int, Predictions]]:
        by_trial: dict[Trial, dict[int, Predictions]] = {}
        for job in jobs:
            by_trial.setdefault(job.trial, {})[job.seed] = Predictions.load(job.path)
        trial = choose_trial(
            {trial: list(found.values()) for trial, found in by_trial.items()},
            self.data.validation,
            num_groups=len(self.data.group_names),
        )
        return trial, by_trial[trial]


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
        todo: list[tuple[int, int, Job]],
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
                job = heappop(todo)[-1]
                if self._executor is not None:
                    running[self._executor.submit(_do, job)] = job
                    continue
                _do(job)
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


def _do(job: Job) -> None:
    assert _worker is not None, "begun first"
    data, settings, device = _worker
    found = run_trial(job.trial, job.seed, data, settings=settings, part=job.part, device=device)  # type: ignore[arg-type]
    part = job.path.with_name(job.path.name + ".part")
    with part.open("wb") as file:
        found.save(file)
    part.replace(job.path)


def _content(part: LabelledImages) -> str:
    return _digest(part.images.tobytes(), part.labels.tobytes(), part.groups.tobytes(), repr(part.images.shape))


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else part.encode())
    return digest.hexdigest()[:8]
