"""An operator's machines, for tests: Postgres, a Prefect server on it, workers, a Ray cluster, an S3 endpoint.

All of them are real and in processes of their own, on ports that are free, and can be killed at any moment.
"""

import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 300
AGENTS = ("metrics-export", "dashboard-agent-grpc", "dashboard-agent-listen", "runtime-env-agent")


def free_port():
    """A port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition, *, seconds, what, every=0.5):
    """The first true answer of `condition`; fails the test where there is none in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = condition()
        if answer:
            return answer
        time.sleep(every)
    pytest.fail(f"waited {seconds} s for {what}")
    return None


def descendants(pid):
    """The process and all that it started, as far as they live, the youngest first."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
    found = [pid] if pid in parents else []
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found[::-1]


def kill_tree(pid):
    """Kill -9 a process and all that it started: a machine that loses its power."""
    for process in descendants(pid)[::-1]:  # parents first, so that none sees its child die and tells of it
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def is_alive(pid):
    """Whether a process lives; one that nobody has buried yet does not."""
    try:
        return Path("/proc", str(pid), "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class Process:
    """A process of ours whose output goes to a file."""

    def __init__(self, command, *, log, environment, cwd=ROOT):
        self.log = Path(log)
        with self.log.open("ab") as output:
            self._popen = subprocess.Popen(
                [str(part) for part in command],
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    def stop(self, *, seconds=30):
        """End it as an operator does, by force where it does not listen."""
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self._popen.wait(timeout=seconds)
        kill_tree(self.pid)
        self._popen.wait()

    def kill(self):
        """Kill -9 it and all that it started."""
        kill_tree(self.pid)
        self._popen.wait()

    def told(self):
        """The end of what it wrote."""
        return self.log.read_text(errors="replace")[-4000:]

    def wait_for(self, answers, *, what):
        """Until it answers; fails the test where it ends before."""

        def look():
            if self._popen.poll() is not None:
                pytest.fail(f"{what} ended:\n{self.told()}")
            return answers()

        wait_until(look, seconds=START_SECONDS, what=f"{what}:\n{self.told()}")


@contextmanager
def postgres():
    """A Postgres of our own. Yields its URL; skips where Debian's package is not installed."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not binaries:
        pytest.skip("no Postgres in /usr/lib/postgresql; install the package postgresql")
    folder, port, bin_folder = Path(tempfile.mkdtemp(prefix="pg-")), free_port(), binaries[-1].parent
    as_user = []
    if os.geteuid() == 0:  # Postgres refuses root
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
        as_user = ["runuser", "-u", "postgres", "--"]
    data = folder / "data"
    made = subprocess.run(
        [*as_user, str(bin_folder / "initdb"), "-D", str(data), "-A", "trust", "-U", "prefect", "--no-sync"],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    command = [*as_user, bin_folder / "postgres", "-D", data, "-p", port, "-k", folder, "-h", "127.0.0.1", "-F"]
    log = Path(tempfile.mkdtemp(prefix="pg-log-")) / "log"
    process = Process(command, log=log, environment=dict(os.environ), cwd=folder)
    try:
        process.wait_for(lambda: _listens(port), what="Postgres")
        time.sleep(1)
        yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
    finally:
        process.stop()
        shutil.rmtree(folder)
        shutil.rmtree(log.parent)


def _listens(port):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Site:
    """A Prefect server and the machines that work for it."""

    def __init__(self, folder, *, database):
        self.folder, self._port = Path(folder), free_port()
        self.url = f"http://127.0.0.1:{self._port}/api"
        self.environment = os.environ | {
            "PREFECT_API_URL": self.url,
            "PREFECT_HOME": str(self.folder / "home"),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_WORKER_HEARTBEAT_SECONDS": "10",
            "PREFECT_LOGGING_LEVEL": "INFO",
            "PREFECT_SERVER_API_PORT": str(self._port),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": database,
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
        }
        self._server, self._processes = None, []

    def start_server(self):
        """Start the server, or start it again."""
        if self._server is not None:
            self._server.stop()
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", self._port]
        self._server = Process(command, log=self.folder / "server.log", environment=self.environment)
        self._server.wait_for(self.is_healthy, what="the Prefect server")

    def kill_server(self):
        """Kill -9 the server."""
        self._server.kill()

    @property
    def server_pid(self):
        """The server's process, which leads a process group of its own."""
        return self._server.pid

    def is_healthy(self):
        """Whether the server answers."""
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def prefect(self, *args, seconds=600):
        """Run `prefect ARGS` from the checkout. Returns what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", *map(str, args)],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ask(self, path, body=None):
        """Ask the server's REST interface."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/{path}", data=data, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def start(self, command, *, name, **environment):
        """Start a process with the site's environment; `close` ends it."""
        log = self.folder / f"{name}-{len(self._processes)}.log"
        process = Process(command, log=log, environment=self.environment | environment)
        self._processes.append(process)
        return process

    def start_worker(self, **environment):
        """Start a worker that takes one run at a time."""
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "gpu", "--limit", "1"]
        return self.start(command, name="worker", **environment)

    def submit(self, deployment, overrides):
        """Create a run of a deployment. Returns its id."""
        found = self.ask(f"deployments/name/{deployment}")
        run = self.ask(f"deployments/{found['id']}/create_flow_run", {"parameters": {"overrides": overrides}})
        return run["id"]

    def state(self, run_id):
        """The type of the run's state, e.g. "RUNNING"."""
        return self.ask(f"flow_runs/{run_id}")["state_type"]

    def wait_for_state(self, run_id, *states, seconds=1200):
        """Until the run is in one of these states."""

        def look():
            state = self.state(run_id)
            assert state in states or state not in {"FAILED", "CRASHED", "CANCELLED", "COMPLETED"}, self.why(run_id)
            return state in states

        wait_until(look, seconds=seconds, what=f"a run to be {' or '.join(states)}; {self.why(run_id)}")

    def why(self, run_id):
        """The run's state with its message."""
        return str(self.ask(f"flow_runs/{run_id}")["state"])

    def units_at_work(self, run_id):
        """Names of the run's units that are being made, as far as the server has heard."""
        mine = {"flow_runs": {"id": {"any_": [run_id]}}, "task_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
        return {task["name"] for task in self.ask("task_runs/filter", mine)}

    def declare_crashed(self, run_id):
        """What the automation does that misses a run's heartbeats (deploy/automations/crash-lost-runs.yaml)."""
        self.ask(f"flow_runs/{run_id}/set_state", {"state": {"type": "CRASHED", "name": "Crashed"}, "force": True})

    def stop_processes(self):
        """End all but the server."""
        while self._processes:
            self._processes.pop().stop()

    def close(self):
        """End everything."""
        self.stop_processes()
        if self._server is not None:
            self._server.stop()


class RayCluster:
    """A head that does no work, and machines with one CPU place each; with a token, as a cluster on a network needs."""

    def __init__(self, site):
        self._site = site
        self._temporary = Path(tempfile.mkdtemp(prefix="ray-"))  # socket names may not be long
        token = self._temporary / "token"
        token.write_text(secrets.token_hex(32))
        self.address = f"127.0.0.1:{free_port()}"
        self.environment = {
            "RAY_ADDRESS": self.address,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",  # on a busy machine Ray's own 15 would wait for everybody else
        }
        port = self.address.split(":")[1]
        self._start("--head", f"--port={port}", f"--temp-dir={self._temporary}", "--include-dashboard=false", cpus=0)

    def add_machine(self):
        """Start a machine. Returns its process."""
        return self._start(f"--address={self.address}", cpus=1)

    def _start(self, *options, cpus, attempts=6):
        # Ray gives a machine half a minute to come up; where everything is slow it takes some attempts.
        for _ in range(attempts):
            machine = self._site.start(self._command(*options, cpus=cpus), name="ray", **self.environment)
            if self._has_started(machine):
                return machine
            machine.kill()
        pytest.fail(f"no machine of the Ray cluster started:\n{machine.told()}")
        return None

    def _has_started(self, machine):
        ended = wait_until(
            lambda: "started" if "Ray runtime started" in machine.told() else not is_alive(machine.pid) and "ended",
            seconds=START_SECONDS,
            what="a machine of the Ray cluster",
        )
        return ended == "started"

    def _command(self, *options, cpus):
        # Ports that are given are not waited for.
        ports = [f"--{agent}-port={free_port()}" for agent in AGENTS]
        return [
            *("env", "--unset=RAY_ADDRESS", sys.executable, "-m", "ray.scripts.scripts", "start", "--block"),
            *("--disable-usage-stats", f"--num-cpus={cpus}", "--num-gpus=0", "--object-store-memory=100000000"),
            *("--node-ip-address=127.0.0.1", *ports, *options),
        ]

    def close(self):
        """Forget its files; its processes are the site's."""
        shutil.rmtree(self._temporary, ignore_errors=True)


@contextmanager
def s3_endpoint(site):
    """A real S3 endpoint with an empty bucket. Yields (URL of a store, the environment that reaches it)."""
    port = free_port()
    process = site.start([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port], name="s3")
    process.wait_for(lambda: _listens(port), what="the S3 endpoint")
    environment = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    import s3fs

    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("bucket")
        yield "s3://bucket/store", environment
        s3fs.S3FileSystem.clear_instance_cache()
