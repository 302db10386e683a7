"""The Prefect server of a command: looked at before anything is read, or started for the command alone.

Where PREFECT_API_URL names a server, one question tells whether it answers as a Prefect server should. Where it names
none, a temporary server is started: in a session of its own, so that a Ctrl-C in the terminal reaches the command
alone, and with a pipe from the command, so that it ends with it, however the command ends.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, Any

import httpx
import prefect
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_HOME,
    get_current_settings,
    temporary_settings,
)

_LOCAL = ("127.0.0.1", "localhost", "::1")
#: Attempts at a port that another program has just taken.
_ATTEMPTS = 3
_SERVE = """
import os, signal, sys, threading, uvicorn
def end_with_the_command():
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=end_with_the_command, daemon=True).start()
uvicorn.run("prefect.server.api.server:create_app", factory=True, app_dir=sys.argv[1], host="127.0.0.1",
            port=int(sys.argv[2]), log_level="error", lifespan="on")
"""


class ServerError(ValueError):
    """No Prefect server is to be had: one line with the address, the reason and the remedy."""


def require_server() -> None:
    """Find out whether the configured server answers, or start a temporary one.

    Raises:
        ServerError: It does not, or cannot be started.
    """
    url = PREFECT_API_URL.value()
    if url:
        _ask(url)
    else:
        _start()


def require_named_server() -> None:
    """Find out whether the server of PREFECT_API_URL answers.

    Raises:
        ServerError: It does not, or none is named.
    """
    url = PREFECT_API_URL.value()
    if not url:
        raise ServerError(
            "PREFECT_API_URL is not set; name the server whose workers are meant, e.g. http://HOST:4200/api."
        )
    _ask(url)


def _ask(url: str) -> None:
    try:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), get_client(sync_client=True) as client:
            answer = client.request("GET", "/admin/version")
    except PrefectHTTPStatusError as error:
        raise ServerError(_refusal(url, error.response.status_code)) from error
    except httpx.HTTPError as error:
        raise ServerError(_silence(url, error)) from error
    version = _version(answer)
    if version is None:
        ending = "" if url.rstrip("/").endswith("/api") else f"; the address should end in /api: {url.rstrip('/')}/api"
        raise ServerError(f"PREFECT_API_URL {url} answers, but not as the API of a Prefect server does{ending}.")
    theirs, ours = _numbers(version), _numbers(prefect.__version__)
    if theirs[0] != ours[0] or theirs < ours:
        raise ServerError(
            f"the Prefect server at {url} has version {version}, this command needs {ours[0]}.{ours[1]} or a later "
            f"{ours[0]}; upgrade the server, or unset PREFECT_API_URL to run with a temporary one."
        )


def _refusal(url: str, status: int) -> str:
    """What an answer that is an error means."""
    if status in (401, 403):
        return (
            f"the Prefect server at {url} refuses the command ({status}, unauthorized); set PREFECT_API_AUTH_STRING "
            "(or PREFECT_API_KEY) to what the server was started with."
        )
    if status == 404 and not url.rstrip("/").endswith("/api"):
        return f"PREFECT_API_URL {url} has no Prefect API (404); the address should end in /api: {url.rstrip('/')}/api."
    if status == 407:
        return f"a proxy before the Prefect server at {url} wants a password (407); put the host into NO_PROXY."
    if status >= 500:
        return (
            f"the Prefect server at {url} answers {status}, so it or a proxy before it is in trouble; look at its log, "
            "or unset PREFECT_API_URL to run with a temporary one."
        )
    return f"the Prefect server at {url} answers {status}; look whether the address is that of a Prefect API."


def _silence(url: str, error: httpx.HTTPError) -> str:
    """What no answer means."""
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, httpx.ProxyError):
        return f"the proxy before the Prefect server at {url} fails ({reason}); see HTTP_PROXY and NO_PROXY."
    if isinstance(error, (httpx.UnsupportedProtocol, httpx.LocalProtocolError)):
        return f"PREFECT_API_URL {url} is no address ({reason}); write http://HOST:4200/api."
    if "CERTIFICATE" in reason.upper() or "SSL" in reason.upper():
        return (
            f"the certificate of the Prefect server at {url} is not trusted ({reason}); set PREFECT_API_SSL_CERT_FILE "
            "to your authority's certificate, or write http:// where the server speaks no TLS."
        )
    return (
        f"no Prefect server answers at {url} ({reason}); start it (prefect server start), or unset PREFECT_API_URL to "
        f"run with a temporary one.{_proxy_hint()}"
    )


def _proxy_hint() -> str:
    proxies = [name for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY") if os.environ.get(name)]
    proxies += [name.lower() for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY") if os.environ.get(name.lower())]
    if not proxies:
        return ""
    return f" {' and '.join(proxies[:2])} is set: a server in your own network may have to stand in NO_PROXY."


def _version(answer: httpx.Response) -> str | None:
    try:
        text = json.loads(answer.text)
    except ValueError:
        return None
    return text if isinstance(text, str) and _numbers(text) != (0, 0) else None


def _numbers(version: str) -> tuple[int, int]:
    """Major and minor number; zeros where it is none."""
    parts = version.split(".")
    if len(parts) < 2 or not (parts[0].isdigit() and parts[1].isdigit()):
        return 0, 0
    return int(parts[0]), int(parts[1])


def keep_local_requests_local() -> None:
    """Complete NO_PROXY, so that nothing on this machine is asked for by proxy."""
    for name in ("NO_PROXY", "no_proxy"):
        known = [host.strip() for host in os.environ.get(name, "").split(",") if host.strip()]
        if "*" not in known:
            os.environ[name] = ",".join([*known, *(host for host in _LOCAL if host not in known)])


class _OwnServer(SubprocessASGIServer):
    """Prefect's temporary server, detached from the terminal and bound to this process by a pipe."""

    attempts = 0
    log: IO[Any] | None = None

    def _run_uvicorn_command(self) -> "subprocess.Popen[Any]":
        self.attempts += 1
        if self.attempts > _ATTEMPTS:
            raise RuntimeError("its process ends as soon as it is started")
        self.log = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the server lives
        arguments = [str(prefect.__module_path__.parent), str(self.port)]
        settings = get_current_settings().to_environment_variables(exclude_unset=True)
        marks = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
        return subprocess.Popen(
            [sys.executable, "-c", _SERVE, *arguments],
            env={**os.environ, **marks, **settings},
            stdin=subprocess.PIPE,  # closed by the system when this process ends
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )

    def last_words(self) -> str:
        """The last line that the server printed."""
        if self.log is None:
            return ""
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip()[:300] if lines else ""


def _start() -> None:
    """Start the server that Prefect's clients in this process will find."""
    keep_local_requests_local()
    _require_home(Path(PREFECT_HOME.value()))
    server = SubprocessASGIServer._instances.get(None) or _OwnServer()
    if server.running:
        return
    failures: list[BaseException] = []

    def start() -> None:
        try:
            server.start()
        except Exception as error:
            failures.append(error)

    starter = threading.Thread(target=start, name="temporary server", daemon=True)
    starter.start()
    while starter.is_alive():
        starter.join(0.1)
        process = server.server_process
        # 3 is uvicorn's word for a start that failed; Prefect tries another port then.
        if starter.is_alive() and process is not None and process.poll() not in (None, 3):
            failures.append(RuntimeError(f"its process ended with exit code {process.returncode}"))
            break
    if failures:
        reason = " ".join(str(failures[0]).split())[:300]
        said = server.last_words() if isinstance(server, _OwnServer) else ""
        with contextlib.suppress(Exception):
            server.stop()
        raise ServerError(
            f"the temporary Prefect server does not start ({reason}{f'; it said: {said}' if said else ''}); look at "
            f"PREFECT_HOME ({PREFECT_HOME.value()}), or start a server (prefect server start) and set PREFECT_API_URL."
        )


def _require_home(home: Path) -> None:
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise ServerError(
            f"PREFECT_HOME {home} cannot be written ({error.strerror}), and a temporary Prefect server keeps its "
            "database there; set PREFECT_HOME to a folder of yours, or PREFECT_API_URL to a server."
        ) from error
