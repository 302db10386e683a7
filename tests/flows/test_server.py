"""The Prefect server of a command: asked before anything is read, and told in one line where it will not do."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import prefect
import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from flows.server import ServerError, keep_local_requests_local, require_server

pytestmark = pytest.mark.system

MINORITY = str(Path(sys.executable).with_name("minority"))


@pytest.fixture
def stub():
    """Starts a server that gives one answer to everything; returns its address."""
    servers = []

    def start(status, kind, text):
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *arguments):
                pass

        server = HTTPServer(("127.0.0.1", 0), Answer)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def refusal(url):
    with temporary_settings({PREFECT_API_URL: url}), pytest.raises(ServerError) as caught:
        require_server()
    message = str(caught.value)
    assert "\n" not in message
    assert url in message
    return message


@pytest.mark.parametrize(
    ("status", "path", "said"),
    [
        (401, "/api", "set PREFECT_API_AUTH_STRING"),
        (403, "/api", "set PREFECT_API_AUTH_STRING"),
        (404, "", "should end in /api"),
        (404, "/api", "look whether the address is that of a Prefect API"),
        (409, "/api", "answers 409"),
        (422, "/api", "answers 422"),
        (500, "/api", "is in trouble"),
        (503, "/api", "is in trouble"),
    ],
)
def test_an_answer_that_is_an_error_is_one_line_at_once(stub, status, path, said):
    started = time.monotonic()

    assert said in refusal(stub(status, "application/json", '{"detail": "no"}') + path)
    assert time.monotonic() - started < 10


def test_an_address_without_api_is_told_as_that(stub):
    assert "should end in /api" in refusal(stub(200, "text/html", "<!doctype html><title>UI</title>"))


@pytest.mark.parametrize(
    ("version", "refused"), [("2.20.1", True), ("3.0.0", True), ("4.0.0", True), (prefect.__version__, False)]
)
def test_a_server_of_another_version_is_named(stub, version, refused):
    url = stub(200, "application/json", json.dumps(version)) + "/api"
    if refused:
        assert f"has version {version}" in refusal(url)
    else:
        with temporary_settings({PREFECT_API_URL: url}):
            require_server()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:9/api", "no Prefect server answers"),
        ("http://no.such.host.invalid/api", "no Prefect server answers"),
    ],
)
def test_silence_is_told_with_its_reason(url, said):
    assert said in refusal(url)


def test_a_server_without_tls_is_named_where_https_is_asked(stub):
    url = stub(200, "application/json", "{}").replace("http://", "https://") + "/api"

    assert "certificate" in refusal(url)


def test_a_home_that_cannot_be_written_is_named_before_a_server_is_tried(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("no folder")
    monkeypatch.setattr("flows.server.SubprocessASGIServer._instances", {})

    with temporary_settings({PREFECT_API_URL: None, PREFECT_HOME: file / "home"}), pytest.raises(ServerError) as caught:
        require_server()

    assert "PREFECT_HOME" in str(caught.value)
    assert "cannot be written" in str(caught.value)


@pytest.mark.parametrize(
    ("before", "after"),
    [("", "127.0.0.1,localhost,::1"), ("corp,localhost", "corp,localhost,127.0.0.1,::1"), ("*", "*")],
)
def test_this_machine_is_never_asked_for_by_proxy(monkeypatch, before, after):
    monkeypatch.setenv("NO_PROXY", before)
    monkeypatch.setenv("no_proxy", before)

    keep_local_requests_local()

    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == after


@pytest.mark.slow
def test_a_temporary_server_ends_with_its_command_even_if_that_is_killed(tmp_path):
    script = (
        "import flows.shell, os, sys\n"
        "from flows.server import require_server, SubprocessASGIServer\n"
        "require_server()\n"
        "print(SubprocessASGIServer._instances[None].server_process.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    environment = os.environ | {"PREFECT_HOME": str(tmp_path), "PYTHONPATH": str(Path.cwd())}
    environment.pop("PREFECT_API_URL", None)
    command = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    server = int(command.stdout.readline())
    os.kill(server, 0)  # it lives

    command.send_signal(signal.SIGKILL)
    command.communicate()

    for _ in range(300):
        if not Path(f"/proc/{server}").exists() or "Z" in Path(f"/proc/{server}/stat").read_text().split(")")[1][:3]:
            break
        time.sleep(0.1)
    else:
        pytest.fail("the server lives on")


@pytest.mark.parametrize("redirect", [">/dev/full", ">&-", "| head -c 1 >/dev/null"])
def test_lost_output_is_no_failure_of_the_command(redirect):
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {MINORITY} presets {redirect}"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 1


def test_a_terminal_without_unicode_ends_no_command():
    environment = os.environ | {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [MINORITY, "augment", "größe-→"], capture_output=True, text=True, check=False, env=environment
    )

    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no preset augment/gr")
