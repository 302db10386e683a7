"""Runs of very many units: seconds, peak memory, and what the Prefect server's database grows by.

    .venv/bin/python -m benchmarks.many_units --units 1000 10000
    .venv/bin/python -m benchmarks.many_units --units 1000 10000 --postgres /usr/lib/postgresql/15/bin

Every unit is one 8x8 image, drawn in one step by a tiny U-Net of random weights, so that what is measured is planning,
storing, choosing and publishing, and not sampling. Each run has a server of its own with an empty database, and is
`minority augment` in a process of its own. Growth of the database is counted from the running empty server to the end
of the run, write-ahead log included (SQLite), or after a VACUUM (Postgres).
"""

import argparse
import contextlib
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MIB = 1024 * 1024
#: Real images of the split below; each is a unit, too.
REAL = 87


@dataclass(frozen=True)
class Measured:
    """One run.

    Attributes:
        units: Units in it.
        seconds: From the command to its end.
        peak_mib: The most memory that its process held.
        database_mib: What the server's database grew by.
        start_mib: The same process's memory before the first unit.
    """

    units: int
    seconds: float
    peak_mib: float
    start_mib: float
    database_mib: float


def settings(units: int, *, backbone: str, store: str) -> dict[str, object]:
    """Settings of a run of about so many units: real images, and one round of candidates at a yield of one half."""
    quota = math.ceil(((units - REAL) / 2 + REAL) / 10)
    return {
        "backbone.path": backbone,
        "dataset.split.test_fraction": 0.9,
        "dataset.split.validation_fraction": 0,
        "dataset.split.imbalance": 5,
        "sampler.steps": 1,
        "sampler.self_guidance": None,
        "scores.elbo_steps": 1,
        "scores.draws": 1,
        "selection.rare_quantile": 0,
        "selection.realism_floor": 0,
        "selection.label_floor": 0.5,
        "plan.unit_size": 1,
        "plan.quota": quota,
        "plan.expected_yield": 0.5,
        "plan.max_rounds": 1,
        "plan.baseline": False,
        "downstream.seeds": 0,
        "store": store,
    }


def save_backbone(folder: Path, *, side: int = 8, channels: int = 1) -> str:
    """A U-Net of random weights for ten classes of images, 8x8 grey ones unless told otherwise."""
    from diffusers import UNet2DModel

    from minority.backbones import UNetSettings, save_folder
    from minority.diffusion.schedule import NoiseSchedule

    unet = UNet2DModel(
        sample_size=side,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        num_class_embeds=10,
    )
    return str(save_folder(folder, unet, schedule=NoiseSchedule.cosine(100), settings=UNetSettings(num_classes=10)))


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def sqlite(home: Path) -> Iterator[tuple[dict[str, str], Callable[[], int]]]:
    """Yields a server's environment and what tells the database's size in bytes."""
    yield {}, lambda: sum(file.stat().st_size for file in home.glob("prefect.db*"))


@contextlib.contextmanager
def postgres(home: Path, binaries: Path) -> Iterator[tuple[dict[str, str], Callable[[], int]]]:
    """The same for a Postgres of its own, which runs as the user postgres where this one is root."""
    data, port = home / "postgres", free_port()
    as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
    where = ["-h", "127.0.0.1", "-p", str(port), "-U", "prefect"]

    def run(tool: str, *arguments: str) -> str:
        command = [*as_user, str(binaries / tool), *arguments]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd="/")
        return done.stdout

    data.mkdir(mode=0o700)
    if as_user:
        shutil.chown(data, "postgres")
        for parent in (home, home.parent):
            parent.chmod(0o755)
    run("initdb", "-D", str(data), "-A", "trust", "-U", "prefect")
    options = f"-p {port} -k {data} -c listen_addresses=127.0.0.1"
    run("pg_ctl", "-D", str(data), "-w", "-l", str(data / "log"), "-o", options, "start")
    try:
        run("createdb", *where, "prefect")
        url = f"postgresql+asyncpg://prefect@127.0.0.1:{port}/prefect"

        def size() -> int:
            run("psql", *where, "-c", "VACUUM", "prefect")
            return int(run("psql", *where, "-tAc", "SELECT pg_database_size('prefect')", "prefect"))

        yield {"PREFECT_SERVER_DATABASE_CONNECTION_URL": url}, size
    finally:
        run("pg_ctl", "-D", str(data), "-m", "fast", "-w", "stop")


@contextlib.contextmanager
def server(home: Path, environment: dict[str, str]) -> Iterator[str]:
    """A Prefect server; yields the URL of its API."""
    port = free_port()
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    mine = (
        os.environ
        | environment
        | {
            "PREFECT_HOME": str(home),
            "PREFECT_SERVER_API_PORT": str(port),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }
    )
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=home, env=mine, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}/api"
        while not answers(f"{url}/health"):
            if process.poll() is not None:
                raise RuntimeError(f"the server did not start: {(home / 'server.log').read_text()[-2000:]}")
            time.sleep(0.5)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)


def answers(url: str) -> bool:
    """Whether somebody answers there."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def settled(size: Callable[[], int]) -> int:
    """The database's size once it has stopped growing: events reach it some seconds after they happen."""
    before, now = -1, size()
    while now != before:
        time.sleep(10)
        before, now = now, size()
    return now


def memory_mib(pid: int, field: str) -> float:
    """VmRSS (now), RssAnon (of that its own) or VmHWM (the peak) of a process; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:")), 0.0)


def run_and_watch(command: list[str], *, environment: dict[str, str], store: Path) -> tuple[float, float, float]:
    """Run to the end. Returns seconds, peak MiB, and MiB when the first unit was done."""
    began, peak, start = time.monotonic(), 0.0, 0.0
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, memory_mib(process.pid, "VmHWM"))
        if not start and any(store.glob("*/runs/*/units/*.json")):
            start = memory_mib(process.pid, "VmRSS")
        time.sleep(0.5)
    if process.returncode:
        raise RuntimeError(f"the run failed with exit code {process.returncode}; its message is above.")
    return time.monotonic() - began, peak, start


def measure(units: int, *, folder: Path, binaries: Path | None = None) -> Measured:
    """One run of about so many units, with a server of its own.

    Args:
        units: How many.
        folder: An empty folder for everything that is written.
        binaries: Where Postgres' programs lie; None for SQLite.
    """
    home, store = folder / "server", folder / "store"
    home.mkdir(parents=True)
    chosen = settings(units, backbone=save_backbone(folder / "backbone"), store=str(store))
    command = [sys.executable, "-c", "from flows.command_line import main; main()", "augment", "digits"]
    for name, value in chosen.items():
        command += ["--set", f"{name}={json.dumps(value)}"]
    with contextlib.ExitStack() as stack:
        environment, size = stack.enter_context(sqlite(home) if binaries is None else postgres(home, binaries))
        url = stack.enter_context(server(home, environment))
        before = settled(size)
        mine = os.environ | {"PREFECT_API_URL": url, "PREFECT_HOME": str(folder / "client"), "OMP_NUM_THREADS": "1"}
        seconds, peak, start = run_and_watch(command, environment=mine, store=store)
        grown = settled(size) - before
    made = len(list(store.glob("*/runs/*/units/*.json")))
    return Measured(units=made, seconds=seconds, peak_mib=peak, start_mib=start, database_mib=grown / MIB)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, nargs="+", default=[1000, 10_000], help="units of each run")
    parser.add_argument("--postgres", type=Path, metavar="FOLDER", help="Postgres' programs; SQLite without")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder without")
    arguments = parser.parse_args()
    print("| units | database | s | memory at first unit, MiB | peak, MiB | database grew by, MiB |")
    print("|---|---|---|---|---|---|", flush=True)
    for units in arguments.units:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            found = measure(units, folder=Path(folder), binaries=arguments.postgres)
        name = "SQLite" if arguments.postgres is None else "Postgres"
        print(
            f"| {found.units:,} | {name} | {found.seconds:.0f} | {found.start_mib:.0f} | {found.peak_mib:.0f} "
            f"| {found.database_mib:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
