"""One real Prefect server for all tests of this folder, and the command line in processes of its own."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = Path(__file__).with_name("launcher.py")


def load(name):
    """A module beside this one: tests are no package, so it is loaded by its path, and imported by name afterwards."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


operation = load("operation")


def free_port():
    """A port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def stop(process):
    """End a process of ours, by force where it does not listen."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def server_url(tmp_path_factory):
    """URL of the API of a server started as an operator does, with an empty database."""
    home, port = tmp_path_factory.mktemp("prefect-server"), free_port()
    environment = os.environ | {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_UI_URL": f"http://127.0.0.1:{port}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    log = home / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=home, env=environment, stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}/api"
    try:
        _wait_for(f"{url}/health", process, log)
        yield url
    finally:
        stop(process)


def _wait_for(url, process, log, *, seconds=300):
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the Prefect server did not start:\n{log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def prefect_api(server_url):
    """Makes flows of this process use the server."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    # The heartbeat's thread sleeps in whole seconds and would keep every flow waiting for it.
    with temporary_settings({PREFECT_API_URL: server_url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield server_url
        APILogWorker.instance().drain()
        EventsWorker.drain_all()


@pytest.fixture(scope="session")
def ask_api(server_url):
    """Reads from the server's REST interface: ask_api("artifacts/filter", {...}) or ask_api("work_pools/gpu")."""

    def ask(path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{server_url}/{path}", data=data, headers={"Content-Type": "application/json"} if data else {}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    return ask


@dataclass(frozen=True)
class Finished:
    """A command that has ended: exit code (minus the signal where it was killed) and what it wrote.

    Of standard error, notes and progress on the way are kept apart from warnings and errors.
    """

    code: int
    stdout: str
    stderr: str
    on_the_way: str


class Launcher:
    """Starts the command line in processes of their own; see launcher.py."""

    def __init__(self, folder, url, *, more=None):
        self._out, self._err = folder / "out", folder / "err"
        environment = os.environ | {"PREFECT_API_URL": url, "PREFECT_HOME": str(folder), "PYTHONPATH": str(ROOT)}
        environment |= more or {}
        environment["OMP_NUM_THREADS"] = "1"  # no contention with the server and what else runs here
        environment.pop("PREFECT_LOGGING_LEVEL", None)  # what a user sees is what is tested
        self._process = subprocess.Popen(
            [sys.executable, str(LAUNCHER)],
            cwd=folder,  # users start it where they like
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, *args, fault=None):
        """Start `minority ARGS`, with a fault of injection.py. Returns its process id; `finish` must follow."""
        request = {"args": [str(arg) for arg in args], "stdout": str(self._out), "stderr": str(self._err)}
        request["fault"] = fault
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()["pid"]

    def finish(self):
        """Wait for the command to end."""
        code = self._answer()["code"]
        lines = self._err.read_text().splitlines(keepends=True)
        on_the_way = [line for line in lines if line.startswith(("note: ", "progress: "))]
        told = [line for line in lines if line not in on_the_way]
        return Finished(code, self._out.read_text(), "".join(told), "".join(on_the_way))

    def __call__(self, *args, fault=None):
        """Run `minority ARGS` to its end."""
        self.start(*args, fault=fault)
        return self.finish()

    def close(self):
        """End the launcher."""
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()

    def _answer(self):
        line = self._process.stdout.readline()
        assert line, "the launcher died; its message is above"
        return json.loads(line)


@pytest.fixture(scope="session")
def make_launcher():
    """Starts a launcher of one's own: make_launcher(folder, url, more={...}); to be closed."""
    return Launcher


@pytest.fixture(scope="session")
def minority(tmp_path_factory, server_url):
    """The command line: minority("augment", "digits", ...) gives exit code, stdout and stderr."""
    launcher = Launcher(tmp_path_factory.mktemp("command-line"), server_url)
    yield launcher
    launcher.close()


@pytest.fixture(scope="session")
def as_options():
    """Settings as options of the command line: {"seed": 3} -> ["--set", "seed=3"]."""

    def options(settings):
        return [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]

    return options


@pytest.fixture(scope="session")
def augment_tiny(minority, tiny_overrides, as_options):
    """Runs `minority augment digits` at tiny size: augment_tiny(store, {"seed": 1})."""

    def run(store, settings=None):
        return minority("augment", "digits", "--store", store, *as_options(tiny_overrides | (settings or {})))

    return run


@pytest.fixture(scope="session")
def contents():
    """Path -> bytes of everything that a store shows: published files, units, report and pointers."""
    from datasets.storage.store import Store

    def read(store):
        return {path: Store(store).read(path) for path in Store(store).list()}

    return read


@dataclass(frozen=True)
class Run:
    """A finished run: its store, its folder in it, and how the command ended."""

    store: Path
    folder: Path
    command: Finished


@pytest.fixture(scope="session")
def undisturbed(augment_tiny, tmp_path_factory):
    """A tiny run that nothing happened to. Others compare with it: leave it as it is."""
    store = tmp_path_factory.mktemp("undisturbed") / "store"
    command = augment_tiny(store)
    assert command.code == 0, command.stderr
    (manifest,) = store.rglob("manifest.json")
    return Run(store, manifest.parent, command)


@pytest.fixture(scope="session")
def secret():
    """A credential in the environment of workers, which nothing may repeat."""
    return "wJalrXUtnFEMI-hush"


@pytest.fixture(scope="session")
def prefect(server_url, secret, tmp_path_factory):
    """Runs `prefect ...` from the checkout against the server."""
    environment = os.environ | {
        "PREFECT_API_URL": server_url,
        "PREFECT_HOME": str(tmp_path_factory.mktemp("operator")),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PYTHONPATH": str(ROOT),
        "AWS_SECRET_ACCESS_KEY": secret,
    }

    def run(*args, start=False, cwd=ROOT, seconds=300, **variables):
        command = [sys.executable, "-m", "prefect", "--no-prompt", *args]
        place = {"cwd": cwd, "env": environment | variables, "stdin": subprocess.DEVNULL}
        if start:
            return subprocess.Popen(command, **place, stdout=subprocess.DEVNULL)
        return subprocess.run(command, **place, capture_output=True, text=True, timeout=seconds)

    return run


@pytest.fixture(scope="session")
def change_api(server_url):
    """Changes what the server knows: change_api("automations/<id>", {"enabled": False})."""

    def change(path, body):
        request = urllib.request.Request(
            f"{server_url}/{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method="PATCH",
        )
        with urllib.request.urlopen(request, timeout=30):
            pass

    return change


@pytest.fixture(scope="module")
def at_work(prefect, ask_api, change_api):
    """A context with a work pool, deployments of prefect.yaml, and a worker that takes their runs; no automations."""

    @contextmanager
    def working(*which):
        for command in (["work-pool", "create", "gpu", "--type", "process", "--overwrite"], ["deploy", *which]):
            done = prefect(*command, seconds=900)
            assert done.returncode == 0, done.stdout + done.stderr
        for automation in ask_api("automations/filter", {}):
            change_api(f"automations/{automation['id']}", {"enabled": False})
        worker = prefect("worker", "start", "--pool", "gpu", "--limit", "1", start=True)
        yield
        stop(worker)

    return working


@pytest.fixture(scope="module")
def deployed(at_work):
    """Every deployment, and a worker. Automations are off."""
    with at_work("--all"):
        yield


@pytest.fixture(scope="module")
def run_deployment(prefect, deployed, ask_api):
    """Runs a deployment to its end: the command that watched it, and the run as the server knows it."""

    def run(name, overrides):
        watched = prefect(
            "deployment",
            "run",
            name,
            "-p",
            f"overrides={json.dumps(overrides)}",
            "--watch",
            "--watch-interval",
            "1",
        )
        newest = {"sort": "EXPECTED_START_TIME_DESC", "limit": 1, "flow_runs": {"deployment_id": {"is_null_": False}}}
        (flow_run,) = ask_api("flow_runs/filter", newest)
        return watched, flow_run

    return run


@pytest.fixture(scope="module")
def digits_run(run_deployment, tiny_overrides, tmp_path_factory):
    """A tiny run of augment/digits on the worker."""
    store = tmp_path_factory.mktemp("deployed") / "store"
    return store, *run_deployment("augment/digits", tiny_overrides | {"store": str(store)})


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A server on Postgres, as a locked SQLite ends workers, with every deployment of prefect.yaml."""
    with operation.postgres() as database:
        site = operation.Site(tmp_path_factory.mktemp("site"), database=database)
        try:
            site.start_server()
            site.prefect("work-pool", "create", "gpu", "--type", "process")
            site.prefect("deploy", "--all")
            # A published dataset would start its comparison, and take the workers from the runs of a test.
            for automation in site.ask("automations/filter", {}):
                site.prefect("automation", "pause", "--id", automation["id"])
            yield site
        finally:
            site.close()
