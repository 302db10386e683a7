"""What an operator has: a Prefect server on Postgres that is started again when it dies, and a worker."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

from benchmarks.many_units import answers, free_port

ROOT = Path(__file__).resolve().parents[2]
PREFECT = [sys.executable, "-m", "prefect", "--no-prompt"]


class Server:
    """A Prefect server in a process group of its own, kept alive as systemd would."""

    def __init__(self, home, environment):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/api"
        self._environment = os.environ | environment
        self._environment |= {"PREFECT_HOME": str(home), "PREFECT_SERVER_API_PORT": str(port)}
        self._command = [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        self._home, self._closing = home, False
        self.starts = 0
        self._start()
        self._watch = threading.Thread(target=self._start_again_and_again, daemon=True)
        self._watch.start()

    @property
    def group(self):
        """The process group to kill."""
        return self._process.pid

    def _start(self):
        with (self._home / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._home, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        self.starts += 1

    def _start_again_and_again(self):
        while True:
            self._process.wait()
            if self._closing:
                return
            self._start()

    def wait_until_it_answers(self, *, seconds=300):
        """Wait for a server that has just been started."""
        end = time.monotonic() + seconds
        while not answers(f"{self.url}/health"):
            assert time.monotonic() < end, (self._home / "server.log").read_text()[-2000:]
            time.sleep(0.3)

    def ask(self, path, body=None):
        """GET, or POST where there is a body. Returns the answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/{path}", data=data, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def close(self):
        """End it."""
        self._closing = True
        os.killpg(self.group, signal.SIGTERM)
        self._watch.join(timeout=60)


class Worker:
    """A worker machine: a process worker and the flow runs that it starts, in one process group."""

    def __init__(self, server, home, *, parameters):
        self._server = server
        home.mkdir(exist_ok=True)
        self._environment = os.environ | {"PREFECT_API_URL": server.url, "PREFECT_HOME": str(home)}
        self._environment |= {"PREFECT_WORKER_QUERY_SECONDS": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self._process = None
        self._run(["work-pool", "create", "faults", "--type", "process"])
        flow = server.ask("flows/", {"name": "augment"})
        deployment = {
            "name": "faults",
            "flow_id": flow["id"],
            "entrypoint": "flows.augment:augment",
            "work_pool_name": "faults",
            "parameters": parameters,
            "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}],
        }
        self._deployment = server.ask("deployments/", deployment)["id"]

    def _run(self, arguments):
        subprocess.run([*PREFECT, *arguments], cwd=ROOT, env=self._environment, check=True, stdout=subprocess.DEVNULL)

    def start(self):
        """Start the worker unless it runs."""
        if self._process is None:
            self._process = subprocess.Popen(
                [*PREFECT, "worker", "start", "--pool", "faults"],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def submit(self, overrides):
        """Ask for a run. Returns its id."""
        order = {"parameters": {"overrides": overrides}}
        return self._server.ask(f"deployments/{self._deployment}/create_flow_run", order)["id"]

    def kill(self, *, alone):
        """Kill -9 the worker; where not alone, its flow runs with it. Returns the ids of those that go on."""
        left = children_of(self._process.pid)
        if alone:
            self._process.kill()
        else:
            os.killpg(self._process.pid, signal.SIGKILL)
            for pid in left:
                kill(pid)
        self._process.wait()
        self._process = None
        return left

    def close(self):
        """End it with all that it started."""
        if self._process is not None:
            self.kill(alone=False)


def children_of(pid):
    """Ids of all processes that descend from one."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found = [pid]
    for parent in found:
        found += [child for child, of in parents.items() if of == parent]
    return found[1:]


def kill(pid):
    """Kill -9, unless it has ended."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def wait_until_ended(pids, *, seconds):
    """Wait for processes that are not ours; kills what does not end."""
    end = time.monotonic() + seconds
    while any(Path("/proc", str(pid), "exe").exists() for pid in pids) and time.monotonic() < end:
        time.sleep(0.2)
    for pid in pids:
        kill(pid)
