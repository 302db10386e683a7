"""Faults at random moments, and the same command again: nothing corrupt, half-visible, lost or repeated.

By default a few faults strike one run. The slow test takes all kinds, with a Prefect server on Postgres; it is the long
one, whose table is in docs/faults.md, where MINORITY_FAULTS names a number:

    MINORITY_FAULTS=200 .venv/bin/python -m pytest tests/flows/test_faults.py -m slow -s
"""

import contextlib
import importlib.util
import os
import random
import sys
from functools import partial
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

HERE = Path(__file__).parent
FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
FAULTS = int(os.environ.get("MINORITY_FAULTS", "20"))
#: Of 100 faults.
SHARES = {
    "flow process killed": 30,
    "torn write": 15,
    "disk error": 14,
    "store error (S3)": 12,
    "disk full": 10,
    "clock jump": 7,
    "server killed": 4,
    "worker killed": 4,
    "worker's machine lost": 4,
}


def load(path):
    """A module of the tests, which are no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


s3_server = load(HERE.parent / "datasets" / "storage" / "s3_server.py")
operation, faults, campaign = (load(HERE / f"{name}.py") for name in ("operation", "faults", "campaign"))


@pytest.fixture(scope="module")
def command(tiny_overrides, as_options):
    """The arguments of a tiny run without classifiers, for a store."""

    def of(url):
        return ["augment", "digits", "--store", url, *as_options(tiny_overrides | {"downstream.seeds": 0})]

    return of


def calm(run, command, folder):
    """A run that nothing happens to: what its store holds, and how often it synced to disk."""
    counted = {"kind": "count", "at": 0, "file": str(folder / "syncs")}
    ended = run(*command(folder / "calm"), fault=counted)
    assert (ended.code, ended.stderr) == (0, "")
    return faults.contents_of(folder / "calm"), int((folder / "syncs").read_text())


def test_a_run_struck_by_faults_and_run_again_publishes_the_same_bytes(minority, command, tmp_path):
    undisturbed, syncs = calm(minority, command, tmp_path)
    store, planned = tmp_path / "store", ["torn write", "flow process killed", "disk error"]
    run = campaign.Struck(
        partial(minority, *command(store)),
        store,
        rng=random.Random(5),
        syncs=syncs,
        folder=tmp_path,
    )

    with faults.Reader(store) as reader:
        for stretch, kind in enumerate(planned):
            run.strike(kind, stretch=stretch, of=len(planned))
        finished = minority(*command(store))

    assert (finished.code, finished.stderr) == (0, "")
    assert run.kinds == planned
    findings = faults.findings_of(store, undisturbed) | {"half-visible": reader.problems}
    assert findings == {"corrupt": [], "lost": [], "repeated": [], "half-visible": []}


@pytest.fixture
def object_store(monkeypatch):
    """A real S3 endpoint: reached directly by this process, through a proxy that can fail by what is told its URL."""
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("moto.server")
    with s3_server.s3_endpoint() as endpoint:
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
        for name, value in (keys | {"AWS_ENDPOINT_URL": endpoint}).items():
            monkeypatch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="faults")
        proxy = campaign.StrikingProxy(s3_server.FaultyProxy(endpoint))
        yield proxy, keys | {"AWS_ENDPOINT_URL": proxy.url}
        proxy.close()


@pytest.fixture
def clock(tmp_path):
    """The file that says how far off the clock is, and the environment of a process that goes by it."""
    if FAKETIME is None:
        pytest.skip("no libfaketime in /usr/lib; install the package libfaketime")
    file = tmp_path / "offset"
    file.write_text("+0")
    environment = {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_CACHE_DURATION": "1"}
    return file, environment | {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}


@pytest.fixture
def site(tmp_path):
    """A server on Postgres that is started again whenever it dies."""
    with operation.postgres() as database, contextlib.ExitStack() as ending:
        found = operation.Site(tmp_path, database=database)
        ending.callback(found.close)
        found.start_server()
        ending.callback(campaign.Supervisor(found).close)
        yield found


@pytest.mark.slow
def test_faults_of_every_kind_lose_and_tear_nothing(
    tmp_path, command, make_launcher, object_store, tiny_overrides, clock, site
):
    (proxy, reach_proxy), (clock_file, by_the_clock) = object_store, clock
    planned = {kind: max(1, round(FAULTS * share / 100)) for kind, share in SHARES.items()}
    launchers = []
    for name, environment in (("plain", reach_proxy), ("clock", by_the_clock)):
        (tmp_path / name).mkdir()
        launchers.append(make_launcher(tmp_path / name, site.url, more=environment))
    plain, faked = launchers

    def more(kind, rng):
        jump = {"clock": str(clock_file), "offset": rng.choice(["+3d", "-5h", "+400d", "-30d", "+61s"])}
        return {"clock jump": jump, "server killed": {"group": site.server_pid}}.get(kind, {})

    def run(*arguments, fault=None):
        operation.wait_until(site.is_healthy, seconds=600, what="the server that is started again")
        return (faked if fault and fault["kind"] == "clock jump" else plain)(*arguments, fault=fault)

    strikes = campaign.Campaign(
        planned=planned, folder=tmp_path, seed=FAULTS, run=run, command=command, calm=calm(run, command, tmp_path)
    )
    strikes.on_workers(site, campaign.deploy(site), tiny_overrides | {"downstream.seeds": 0})
    strikes.on_disk(more)
    strikes.on_a_small_disk(lambda size: campaign.small_disk(tmp_path / "small", size))
    before = proxy.requests
    assert run(*command("s3://faults/calm")).code == 0
    strikes.on_s3(proxy, proxy.requests - before)
    for launcher in launchers:
        launcher.close()

    strikes.say(f"\n{strikes.tally.table()}\n\nReaders looked {strikes.tally.looks} times at a visible dataset.")
    assert strikes.tally.stories == []
    assert strikes.tally.struck.total() >= sum(planned.values())
