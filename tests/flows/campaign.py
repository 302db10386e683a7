"""Runs that are struck by faults until every planned fault has struck, each run to its end and compared."""

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

# Loaded by test_faults.py before this file: tests are no package.
import faults
import operation
import pytest

ROOT = Path(__file__).resolve().parents[2]

DEADLY = ("flow process killed", "torn write")
PASSING = ("disk error", "clock jump", "server killed")


class Struck:
    """One store that faults of injection.py strike, one after the other, each at a later stretch of the run."""

    def __init__(self, run, store, *, rng, syncs, folder):
        self._run, self._store, self._rng, self._syncs = run, store, rng, syncs
        self._mark = folder / "struck"
        self.kinds = []

    def strike(self, kind, *, stretch, of, **more):
        """Run, with one fault in a stretch of `of` that a whole run is cut into. Not every fault strikes in time."""
        # Two syncs a file: those of the files that are there already will not come again.
        done = 2 * len(faults.contents_of(self._store))
        moment = int((stretch + self._rng.random()) / of * self._syncs)
        fault = {"kind": kind, "at": max(1, moment - done), "times": self._rng.choice([1, 3, 40]), **more}
        self._mark.unlink(missing_ok=True)
        ended = self._run(fault=fault | {"mark": str(self._mark), "delay": self._rng.uniform(0, 0.08)})
        assert ended.code in (-signal.SIGKILL, 0, 1, 2), ended.stderr
        if self._mark.exists():
            self.kinds.append(kind)
        return ended


class Campaign:
    """Strikes runs until every planned fault has struck, and tells what was found."""

    def __init__(self, *, planned, folder, seed, run, command, calm):
        self._left, self._folder, self._rng = planned, folder, random.Random(seed)
        self._run, self._command, (self._undisturbed, self._syncs) = run, command, calm
        self._numbers = itertools.count()
        self.tally = faults.Tally()

    def _store(self):
        return self._folder / f"run-{next(self._numbers):03d}"

    def _finish(self, url, kinds, reader):
        finished = self._run(*self._command(url))
        assert (finished.code, finished.stderr) == (0, ""), kinds
        reader.look()
        findings = faults.findings_of(url, self._undisturbed) | {"half-visible": reader.problems}
        self.tally.add(kinds, findings, looks=reader.looks)
        for kind in kinds:
            self._left[kind] -= 1
        self.say(f"{self.tally.struck.total():4d} struck, {sum(map(len, findings.values()))} found: {', '.join(kinds)}")

    @staticmethod
    def say(line):
        """Show how far it is, where pytest runs with -s."""
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    def _wanted(self, kinds, count):
        """Kinds that are still planned, at most `count`, in a random order."""
        wanted = [kind for kind in kinds for _ in range(max(0, self._left[kind]))]
        self._rng.shuffle(wanted)
        return wanted[:count]

    def on_disk(self, more):
        """Faults of injection.py: some that end the process, then one that the run may get over by itself."""
        while planned := self._wanted(DEADLY, 3)[: self._rng.choice([2, 3])] + self._wanted(PASSING, 1):
            store = self._store()
            run = Struck(
                partial(self._run, *self._command(store)), store, rng=self._rng, syncs=self._syncs, folder=self._folder
            )
            with faults.Reader(store) as reader:
                for stretch, kind in enumerate(planned):
                    run.strike(kind, stretch=stretch, of=len(planned), **more(kind, self._rng))
                self._finish(store, run.kinds, reader)

    def on_a_small_disk(self, mount):
        """A disk that is full at any size, four times a run."""
        need = sum(4096 * (2 + len(data) // 4096) for data in self._undisturbed.values())
        while planned := self._wanted(["disk full"], 4):
            sizes = sorted(self._rng.uniform(0.05, 0.95) * need for _ in planned)
            kinds = []
            with mount(int(sizes[0])) as (folder, grow), faults.Reader(folder / "store") as reader:
                for size in sizes:
                    grow(int(size))
                    ended = self._run(*self._command(folder / "store"))
                    kinds += ["disk full"] * ("no space left on device" in ended.stderr)
                grow(64 * need)
                self._finish(folder / "store", kinds, reader)

    def on_s3(self, proxy, requests):
        """An object store that answers with errors for a while, before or after it did what was asked."""
        while planned := self._wanted(["store error (S3)"], 4):
            url, kinds = f"s3://faults/run-{next(self._numbers):03d}", []
            with faults.Reader(url) as reader:
                for _ in planned:
                    proxy.strike(self._rng.randrange(requests), times=self._rng.choice([1, 5, 30, 300]), rng=self._rng)
                    self._run(*self._command(url))
                    kinds += ["store error (S3)"] * proxy.calm()
                self._finish(url, kinds, reader)

    def on_workers(self, site, deployment, overrides):
        """A worker that is killed, alone or with its flow run; the command is run again at once."""
        while planned := self._wanted(("worker killed", "worker's machine lost"), 1):
            store, files = self._store(), self._rng.randrange(1, len(self._undisturbed))
            worker = site.start_worker()
            with faults.Reader(store) as reader:
                order = {"parameters": {"overrides": overrides | {"store": str(store)}}}
                site.ask(f"deployments/{deployment}/create_flow_run", order)
                operation.wait_until(lambda: files_in(store) >= files, seconds=600, what="the worker's run", every=0.02)  # noqa: B023
                left = set(operation.descendants(worker.pid)) - {worker.pid}
                if planned == ["worker killed"]:
                    os.kill(worker.pid, signal.SIGKILL)
                else:
                    worker.kill()
                again = self._run(*self._command(store))
                assert again.code == 0, again.stderr
                operation.wait_until(lambda: not any(map(operation.is_alive, left)), seconds=600, what="its flow run")  # noqa: B023
                self._finish(store, planned, reader)


class Supervisor:
    """Starts the site's server again whenever it dies, as systemd would."""

    def __init__(self, site):
        self._site, self._ended = site, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self):
        while not self._ended.wait(0.5):
            if not operation.is_alive(self._site.server_pid):
                self._site.start_server()

    def close(self):
        """Let it rest."""
        self._ended.set()
        self._thread.join()


def files_in(store):
    """How many files lie in a local store, unfinished ones too."""
    return sum(len(names) for _, _, names in os.walk(store))


def deploy(site):
    """A deployment of the digits preset without a limit: a run that is lost must not keep others waiting. Its id."""
    from tasks.config.presets import load_preset
    from tasks.config.runs import AugmentConfig

    site.prefect("work-pool", "create", "gpu", "--type", "process")
    order = {
        "name": "faults",
        "flow_id": site.ask("flows/", {"name": "augment"})["id"],
        "entrypoint": "flows.augment:augment",
        "work_pool_name": "gpu",
        "parameters": {"config": load_preset(AugmentConfig, "digits").model_dump(mode="json")},
        "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}],
    }
    return site.ask("deployments/", order)["id"]


class StrikingProxy:
    """Fails requests to the object store from a number on, for a number of them."""

    def __init__(self, proxy):
        self._proxy = proxy
        self.url, self.close = self._proxy.url, self._proxy.close

    def strike(self, after, *, times, rng):
        """Fail `times` requests after so many good ones."""
        count = itertools.count()
        self._proxy.faults = 0

        def fault(_method, _path):
            failing = after <= next(count) < after + times
            return (rng.choice([500, 503]), rng.random() < 0.5) if failing else None

        self._proxy.fault = fault

    def calm(self):
        """Fail no more. Returns whether any request was failed."""
        self._proxy.fault = lambda _method, _path: None
        return self._proxy.faults > 0

    @property
    def requests(self):
        """How many there were."""
        return len(self._proxy.requests)


@contextlib.contextmanager
def small_disk(place, size):
    """A tmpfs of so many bytes; yields its folder and what makes it larger."""
    place.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=False)
    if mounted.returncode:
        pytest.skip("this user may not mount a small disk")
    try:
        yield place, lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", str(place)], check=True)
    finally:
        subprocess.run(["umount", str(place)], check=True)
