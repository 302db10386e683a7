"""What orchestration costs: units of a slow, fake device that only waits, side by side at one, two and four worker
slots.

    .venv/bin/python -m benchmarks.orchestration --units 60 --seconds 10 --slots 1 2 4

The units go the way of real ones: Prefect tasks, the engine's fan-out, progress, retries. Where RAY_ADDRESS is set they
run on that cluster, a slot a CPU, and --slots has no effect. `ideal` is what the waiting alone takes; `overhead` what
the run took beyond that, from the call of the flow to its end. The start of a temporary Prefect server is not counted.
"""

import argparse
import math
import os
import time

from flows import command_line  # noqa: F401 - sets Prefect's environment before Prefect is imported

# isort: split
import pandas as pd
from prefect import flow, task

from tasks.execution.capacity import Demand, Workers, on_ray, worker_slots
from tasks.execution.failures import TRIED_AGAIN
from tasks.execution.fan_out import fan_out, task_runner
from tasks.execution.progress import stage


@task(task_run_name="unit-{number:05d}", **TRIED_AGAIN)
def wait(number: int, seconds: float) -> int:
    """A unit of the fake device."""
    time.sleep(seconds)
    return number


@flow(name="orchestration", task_runner=task_runner())
def run(units: int, seconds: float, cpus: float) -> int:
    """Wait for all units. Returns the slots that they had."""
    demand = Demand(workers=Workers(cpus=cpus), device="cpu")
    with stage("waiting", unit="units") as on_done:
        fan_out(
            lambda number: wait.submit(number, seconds),
            range(units),
            what="units",
            name=str,
            demand=demand,
            on_done=on_done,
        )
    return worker_slots(demand)


def measure(units: int, *, seconds: float, wanted: int) -> dict[str, float]:
    """One row of the table."""
    cpus = 1.0 if on_ray() else (os.cpu_count() or 1) / wanted
    started = time.perf_counter()
    had = run(units, seconds, cpus)
    wall = time.perf_counter() - started
    ideal = math.ceil(units / had) * seconds
    return {
        "worker slots": had,
        "units": units,
        "seconds a unit": seconds,
        "ideal, s": ideal,
        "run, s": wall,
        "overhead, %": 100 * (wall / ideal - 1),
        "overhead a unit, ms": 1000 * (wall - ideal) / units,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=10.0, help="what the fake device takes for a unit")
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 2, 4], help="units side by side, a row each")
    arguments = parser.parse_args()
    run(1, 0.0, 1.0)  # the server starts, and what is imported at first use
    wanted = [1] if on_ray() else arguments.slots
    rows = [measure(arguments.units, seconds=arguments.seconds, wanted=count) for count in wanted]
    table = pd.DataFrame(rows)
    if len(table) > 1:
        slower = table["run, s"].shift(1) / table["run, s"] / (table["worker slots"] / table["worker slots"].shift(1))
        table["of the ideal gain, %"] = 100 * slower
    print(table.to_markdown(index=False, floatfmt=".4g"))


if __name__ == "__main__":
    main()
