"""Machines that die in the middle of a unit, and runs that are cancelled: what is published is what nobody disturbed.

A real Prefect server on Postgres, workers and Ray machines in processes of their own, and kill -9.
"""

import time
from pathlib import Path

import operation  # conftest.py has loaded it
import pytest

from datasets.storage.store import Store

pytestmark = pytest.mark.slow

SECONDS_TO_STOP = 30


@pytest.fixture(autouse=True)
def nothing_left_running(site):
    yield
    site.stop_processes()


@pytest.fixture(scope="module")
def settings(tiny_overrides):
    """A tiny run whose units take seconds, so that there is a middle of them; the same for every test of this file."""
    return tiny_overrides | {"sampler.steps": 100, "plan.unit_size": 32}


@pytest.fixture(scope="module")
def whole(site, settings, tmp_path_factory):
    """Path -> bytes of the store of a run that nothing happened to."""
    store = tmp_path_factory.mktemp("undisturbed") / "store"
    worker = site.start_worker()
    run = site.submit("augment/digits", settings | {"store": str(store)})
    site.wait_for_state(run, "COMPLETED")
    worker.stop()
    return bytes_of(store)


def bytes_of(store):
    return {path: Store(store).read(path) for path in Store(store).list()}


def units_of(store):
    """Names of the finished units of candidates."""
    names = (path.rsplit("/", 1)[1] for path in Store(store).list() if "/units/" in path and path.endswith(".json"))
    return {name.removesuffix(".json") for name in names if name.startswith("minority")}


def middle_of_a_unit(site, run, store):
    """Wait until a unit is done and others are at work. Returns the names of the latter."""

    def look():
        finished = units_of(store)
        at_work = {name for name in site.units_at_work(run) if name.startswith("minority")} - finished
        return at_work if finished else None

    return operation.wait_until(look, seconds=1200, what="the middle of a unit", every=0.1)


def taken_by(workers, settings):
    """The worker that has the run: the one with a process below it."""

    def look():
        return next((worker for worker in workers if len(operation.descendants(worker.pid)) > 1), None)

    return operation.wait_until(look, seconds=600, what="a worker to take the run")


def go_on(site, run):
    """What an operator does with a run that was lost."""
    site.declare_crashed(run)
    site.prefect("flow-run", "retry", run)
    site.wait_for_state(run, "COMPLETED")


def test_a_worker_killed_in_the_middle_of_a_unit_changes_no_byte(site, settings, whole, tmp_path):
    store = tmp_path / "store"
    workers = [site.start_worker(), site.start_worker()]
    run = site.submit("augment/digits", settings | {"store": str(store)})
    interrupted = middle_of_a_unit(site, run, store)
    victim = taken_by(workers, settings)

    victim.kill()

    lost = interrupted - units_of(store)
    assert lost, "the kill came between two units"
    assert site.state(run) == "RUNNING"  # nobody is left to tell
    assert not list(store.rglob("manifest.json"))
    site.start_worker()
    go_on(site, run)
    assert bytes_of(store) == whole
    Store(store).clean_temporary()


def test_the_same_with_the_store_on_s3(site, settings, whole):
    with operation.s3_endpoint(site) as (url, environment):
        workers = [site.start_worker(**environment), site.start_worker(**environment)]
        run = site.submit("augment/digits", settings | {"store": url})
        interrupted = middle_of_a_unit(site, run, url)

        taken_by(workers, settings).kill()

        assert interrupted - units_of(url), "the kill came between two units"
        site.start_worker(**environment)
        go_on(site, run)
        assert bytes_of(url) == whole


def test_the_server_may_be_killed_and_started_again_in_the_middle(site, settings, whole, tmp_path):
    store = tmp_path / "store"
    site.start_worker()
    run = site.submit("augment/digits", settings | {"store": str(store)})
    middle_of_a_unit(site, run, store)

    site.kill_server()
    time.sleep(5)
    site.start_server()

    site.wait_for_state(run, "COMPLETED")
    assert bytes_of(store) == whole


@pytest.fixture
def cluster(site):
    """A Ray cluster, and a worker beside its head that runs flows on it."""
    pytest.importorskip("ray")
    cluster = operation.RayCluster(site)
    yield cluster
    site.stop_processes()
    cluster.close()


def test_of_two_ray_machines_one_is_killed_and_the_other_does_its_units(site, cluster, settings, whole, tmp_path):
    store = tmp_path / "store"
    machines = [cluster.add_machine(), cluster.add_machine()]
    site.start_worker(**cluster.environment)
    run = site.submit("augment/digits", settings | {"store": str(store)})
    interrupted = middle_of_a_unit(site, run, store)
    assert len(interrupted) <= 4  # two a place: the rest are not yet submitted

    machines[0].kill()

    assert interrupted - units_of(store), "the kill came between two units"
    site.wait_for_state(run, "COMPLETED")
    assert bytes_of(store) == whole


def test_a_cancelled_run_stops_within_half_a_minute_and_goes_on_when_asked(
    site, settings, whole, tmp_path, record_property
):
    store = tmp_path / "store"
    worker = site.start_worker()
    run = site.submit("augment/digits", settings | {"store": str(store)})
    middle_of_a_unit(site, run, store)
    at_work = operation.descendants(worker.pid)[:-1]

    started = time.monotonic()
    site.ask(f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    operation.wait_until(lambda: not any(map(operation.is_alive, at_work)), seconds=120, what="its processes to end")
    seconds = time.monotonic() - started

    record_property("seconds_to_stop", round(seconds, 1))
    assert seconds < SECONDS_TO_STOP
    site.wait_for_state(run, "CANCELLED")
    assert not list(store.rglob("manifest.json"))
    again = site.submit("augment/digits", settings | {"store": str(store)})
    site.wait_for_state(again, "COMPLETED")
    assert bytes_of(store) == whole


def test_a_run_cancelled_on_a_cluster_stops_on_every_machine(site, cluster, settings, whole, tmp_path, record_property):
    store = tmp_path / "store"
    machines = [cluster.add_machine(), cluster.add_machine()]
    site.start_worker(**cluster.environment)
    run = site.submit("augment/digits", settings | {"store": str(store)})
    middle_of_a_unit(site, run, store)
    at_work = [pid for machine in machines for pid in busy_below(machine)]
    assert at_work

    started = time.monotonic()
    site.ask(f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    operation.wait_until(lambda: not any(map(operation.is_alive, at_work)), seconds=120, what="its processes to end")
    seconds = time.monotonic() - started

    record_property("seconds_to_stop", round(seconds, 1))
    assert seconds < SECONDS_TO_STOP
    site.wait_for_state(run, "CANCELLED")
    again = site.submit("augment/digits", settings | {"store": str(store)})
    site.wait_for_state(again, "COMPLETED")
    assert bytes_of(store) == whole


def busy_below(machine):
    """The processes of a machine that make units: Ray writes the task into their names."""
    found = []
    for pid in operation.descendants(machine.pid):
        try:
            line = Path("/proc", str(pid), "cmdline").read_text()
        except OSError:
            continue
        if line.startswith("ray::generate_units"):
            found.append(pid)
    return found


def test_a_run_whose_machine_is_gone_is_called_crashed_by_the_automation(site, settings, tmp_path):
    store = tmp_path / "store"
    site.prefect(
        "automation", "create", "--from-file", operation.ROOT / "deploy" / "automations" / "crash-lost-runs.yaml"
    )
    worker = site.start_worker(PREFECT_FLOWS_HEARTBEAT_FREQUENCY="30")
    long = {"sampler.steps": 100, "plan.unit_size": 64, "plan.quota": 200}
    run = site.submit("augment/digits", settings | long | {"store": str(store)})
    operation.wait_until(lambda: site.units_at_work(run), seconds=600, what="the first unit")
    time.sleep(35)  # a heartbeat must have come for its absence to be noticed

    worker.kill()

    operation.wait_until(lambda: site.state(run) == "CRASHED", seconds=400, what="the automation to notice")
    assert "no heartbeat for 90 seconds" in site.why(run)
    assert not list(store.rglob("manifest.json"))
