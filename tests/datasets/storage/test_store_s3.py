"""The store against a real S3 endpoint (moto's server), with a proxy between that injects throttling and failures."""

import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from datasets.runs.latest import move_latest, read_latest
from datasets.runs.publish import PublishConflictError, PublishedRunError, publish
from datasets.runs.runs import RecipeMismatchError, open_run
from datasets.runs.verify import verify
from datasets.storage.store import Store, StoreError
from datasets.streaming.stream import PublishedStream, StreamSettings

pytestmark = pytest.mark.system

s3fs = pytest.importorskip("s3fs")
boto3 = pytest.importorskip("boto3")
pytest.importorskip("moto.server")

ROOT = Path(__file__).parents[3]


def load_server():
    # Tests are no package; the file beside this one is loaded by its path.
    spec = importlib.util.spec_from_file_location("s3_server", Path(__file__).with_name("s3_server.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


s3_server = load_server()


@pytest.fixture(scope="module")
def endpoint():
    with s3_server.s3_endpoint() as url:
        yield url


@pytest.fixture
def proxy(endpoint, monkeypatch):
    """The only way to the endpoint: everything that the environment's S3 client sends goes through it."""
    faulty = s3_server.FaultyProxy(endpoint)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": faulty.url,
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    yield faulty
    s3fs.S3FileSystem.clear_instance_cache()
    faulty.close()


@pytest.fixture
def bucket(proxy):
    """The URL of an empty bucket."""
    name = f"bucket-{uuid4().hex[:12]}"
    s3fs.S3FileSystem().mkdir(name)
    proxy.requests.clear()
    return f"s3://{name}/store"


def every(number, status, *, methods=("GET", "HEAD", "PUT"), forward=False):
    """Answers every so many requests with an error."""
    count = iter(range(10**9))
    return lambda method, path: (
        (status, forward) if method in methods and next(count) % number == 1 else None
    )  # fmt: skip


def publish_pets(store, run, *, run_id="first", images=None, samples=None):
    facts = replace(run["facts"], run_id=run_id)
    run_store = open_run(store, facts.dataset, run_id, recipe=facts.recipe, config={"seed": 0})
    rows = run["rows"](10)
    made = run["samples"](rows, run["images"](10) if images is None else images)
    publish(run_store, facts=facts, samples=samples or made, metadata=rows, samples_per_shard=4)
    move_latest(store, facts.dataset, run_id)
    return run_store.url("manifest.json")


def all_bytes(store):
    return {path: store.read(path) for path in store.list()}


def test_a_bucket_behaves_as_a_folder_does(bucket):
    store = Store(bucket)

    store.write("a/b.bin", b"first")
    store.write("a/b.bin", b"second")
    assert store.read("a/b.bin") == b"second"
    with store.open_read("a/b.bin") as file:
        assert file.read() == b"second"
    assert not store.create("a/b.bin", b"third")
    assert store.create("c.bin", b"x")
    assert store.list() == ["a/b.bin", "c.bin"]
    assert store.list("nowhere") == []
    assert not store.exists("a")
    with pytest.raises(FileNotFoundError, match=r"a/none does not exist"):
        store.read("a/none")
    store.remove("c.bin")
    store.remove("c.bin")
    store.remove_tree("a")
    assert store.list() == []


def test_of_many_writers_exactly_one_creates(bucket):
    store = Store(bucket)
    together = threading.Barrier(8)

    def create(number):
        together.wait()
        return store.create("claim", b"%d" % number)

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(8)))

    assert sum(won) == 1
    assert store.read("claim") == b"%d" % won.index(True)


def test_a_file_is_swapped_only_where_it_is_still_as_expected(bucket):
    store = Store(bucket)

    assert store.swap("pointer", b"1", expected=None)
    assert store.swap("pointer", b"2", expected=b"1")
    assert not store.swap("pointer", b"3", expected=b"1")
    assert not store.swap("pointer", b"3", expected=None)
    assert not store.swap("absent", b"3", expected=b"1")
    assert store.read("pointer") == b"2"


def test_a_swap_that_another_writer_overtakes_between_look_and_put_fails(bucket, proxy):
    store = Store(bucket)
    store.write("pointer", b"1")
    direct = boto3.client("s3", endpoint_url=f"http://{proxy.upstream}")
    overtaken = []

    def overtake(method, path):
        if method == "PUT" and not overtaken:
            # Straight to the endpoint, while the put that came first waits here.
            name, _, key = path.lstrip("/").partition("/")
            overtaken.append(direct.put_object(Bucket=name, Key=key.split("?")[0], Body=b"9"))

    proxy.fault = overtake

    assert not store.swap("pointer", b"2", expected=b"1")
    assert store.read("pointer") == b"9"


@pytest.mark.parametrize("status", [503, pytest.param(500, marks=pytest.mark.slow)])
def test_throttled_and_failed_requests_are_sent_again(bucket, proxy, small_run, status):
    proxy.fault = every(5, status)

    manifest = publish_pets(Store(bucket), small_run)

    assert proxy.faults > 5
    proxy.fault = lambda method, path: None
    assert verify(manifest) == []
    assert read_latest(Store(bucket), "pets").sequence == 1


@pytest.mark.slow
def test_requests_whose_answers_are_lost_count_once(bucket, proxy, small_run):
    proxy.fault = every(3, 500, methods=("PUT",), forward=True)

    for run_id in ("one", "two"):
        publish_pets(Store(bucket), small_run, run_id=run_id)

    assert proxy.faults > 5
    proxy.fault = lambda method, path: None
    store = Store(bucket)
    assert read_latest(store, "pets").run_id == "two"
    assert store.list("pets/published") == ["pets/published/000001.json", "pets/published/000002.json"]
    for run_id in ("one", "two"):
        assert verify(store.url(f"pets/runs/{run_id}/manifest.json")) == []


@pytest.mark.slow
def test_a_large_file_goes_in_parts_and_a_failed_part_is_sent_again(bucket, proxy):
    store = Store(bucket)
    content = bytes(range(256)) * (101 * 4096)  # 101 MiB: more than twice the size of a part
    failed = []

    def first_part_fails(method, path):
        if "partNumber=1" in path and not failed:
            failed.append(path)
            return (503, False)
        return None

    proxy.fault = first_part_fails

    store.write("large.bin", content)

    assert failed
    assert len({path for method, path in proxy.requests if method == "PUT" and "partNumber" in path}) == 3
    with store.open_read("large.bin") as file:
        file.seek(77 << 20)
        assert file.read(1000) == content[77 << 20 :][:1000]
        assert file.seek(0, 2) == len(content)


def test_an_endpoint_that_stays_down_is_one_clear_error_and_nothing_is_visible(bucket, proxy, small_run, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    proxy.fault = lambda method, path: (500, False) if method == "PUT" and "shards" in path else None

    with pytest.raises(StoreError, match=r"shards/pets-000000\.tar cannot be written: .*; check that the store"):
        publish_pets(Store(bucket), small_run)

    assert not Store(bucket).exists("pets/runs/first/manifest.json")
    assert read_latest(Store(bucket), "pets") is None


@pytest.mark.parametrize("budget", [1, 4, 7, 8])
def test_a_publisher_that_dies_between_any_two_writes_leaves_no_visible_dataset(bucket, small_run, budget):
    # run.json, claim, three shards, table, card | manifest, claim's end, number, pointer
    dying = small_run["dying_store"](bucket, [budget])

    with pytest.raises(small_run["killed"]):
        publish_pets(dying, small_run)

    store = Store(bucket)
    assert store.exists("pets/runs/first/manifest.json") == (budget > 7)
    assert read_latest(store, "pets") is None
    assert verify(publish_pets(store, small_run)) == []
    assert read_latest(store, "pets").sequence == 1


def test_flipped_bits_in_a_bucket_are_seen_by_readers_and_mended_by_the_next_publication(bucket, small_run):
    manifest, store = publish_pets(Store(bucket), small_run), Store(bucket)
    whole = all_bytes(store)
    rng = np.random.default_rng(0)
    for path in sorted(path for path in whole if path.startswith("pets/runs/first/") and "run.json" not in path):
        broken = bytearray(whole[path])
        broken[rng.integers(len(broken))] ^= 1 << int(rng.integers(8))
        store.write(path, bytes(broken))

        assert any(path.removeprefix("pets/runs/first/") in problem for problem in verify(manifest))
        if "/shards/" in path or "manifest.json" in path:
            with pytest.raises(ValueError, match=path.rpartition("/")[2]):
                list(PublishedStream(manifest, StreamSettings(shuffle_buffer=0)).samples())
        publish_pets(store, small_run)
        assert all_bytes(store) == whole


def test_a_bucket_keeps_a_published_run_from_other_recipes_and_other_images(bucket, small_run):
    publish_pets(Store(bucket), small_run)
    store = Store(bucket)
    whole = all_bytes(store)
    other = small_run | {"facts": replace(small_run["facts"], recipe="fedcba987654")}

    with pytest.raises(RecipeMismatchError, match="holds samples of recipe 0123456789ab"):
        publish_pets(store, other)
    store.remove("pets/runs/first/run.json")  # as if somebody cleaned up by hand
    with pytest.raises(RecipeMismatchError, match="holds samples of recipe 0123456789ab"):
        publish_pets(store, other)
    rows = small_run["rows"](10)
    order = {"samples": small_run["samples"](rows, small_run["images"](10)), "metadata": rows, "samples_per_shard": 4}
    with pytest.raises(PublishedRunError, match="is published with recipe 0123456789ab, this is recipe fedcba987654"):
        publish(store.child("pets/runs/first"), facts=other["facts"], **order)
    publish_pets(store, small_run)

    assert all_bytes(store) == whole


def test_a_flipped_bit_of_the_pointer_or_the_history_in_a_bucket_moves_nothing(bucket, small_run):
    store = Store(bucket)
    for run_id in ("one", "two"):
        publish_pets(store, small_run, run_id=run_id)
    for path in ("pets/latest.json", "pets/published/000002.json"):
        sound = store.read(path)
        store.write(path, sound.replace(b"two", b"tvo"))
        assert read_latest(store, "pets").run_id == "two"
        store.write(path, sound)


PUBLISHER = """
import sys, time
import numpy as np, pyarrow as pa
from datasets.runs.manifest import RunFacts
from datasets.runs.publish import publish
from datasets.runs.shards import Sample
from datasets.storage.store import Store
keys = [f"s{number:04d}" for number in range(40)]
rows = pa.table({"key": keys, "source": ["real"] * 40, "sampler": ["real"] * 40, "label": [0] * 40,
                 "label_name": ["cat"] * 40, "group": ["cat"] * 40, "kept": [True] * 40, "reason": ["kept"] * 40})
def samples(pause):
    for number, key in enumerate(keys):
        time.sleep(pause)
        yield Sample(key=key, image=np.full((4, 4, 1), number, np.uint8), label=0, record={})
facts = RunFacts(dataset="pets", run_id="one", recipe="r", config={}, backbone={}, versions={}, class_names=["cat"],
                 provenance="Numbers.")
publish(Store(sys.argv[1]), facts=facts, samples=samples(float(sys.argv[2])), metadata=rows, samples_per_shard=4)
"""


def test_a_killed_publisher_leaves_no_manifest_and_the_next_one_finishes_the_same_bytes(bucket):
    def start(url, pause):
        return subprocess.Popen([sys.executable, "-c", PUBLISHER, url, str(pause)], cwd=ROOT)

    assert start(f"{bucket}/undisturbed", 0).wait() == 0
    store = Store(bucket)
    killed = start(f"{bucket}/killed", 0.02)
    while not store.list("killed/shards"):
        assert killed.poll() is None
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()

    assert not store.exists("killed/manifest.json")
    assert start(f"{bucket}/killed", 0).wait() == 0
    assert all_bytes(store.child("killed")) == all_bytes(store.child("undisturbed"))


@pytest.mark.parametrize("place", ["bucket", "folder"])
def test_of_two_publishers_of_one_run_one_wins_and_the_other_says_so(request, tmp_path, small_run, place):
    store = Store(request.getfixturevalue("bucket") if place == "bucket" else tmp_path)
    rows = small_run["rows"](10)
    samples = small_run["samples"](rows, small_run["images"](10))
    half_way, finish = threading.Event(), threading.Event()

    def slow_samples():
        yield from samples[:6]
        half_way.set()
        assert finish.wait(30)
        yield from samples[6:]

    def late(rows, **changes):
        made = small_run["samples"](rows, small_run["images"](rows.num_rows))
        publish(store, facts=replace(small_run["facts"], **changes), samples=made, metadata=rows)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(
            publish, store, facts=small_run["facts"], samples=slow_samples(), metadata=rows, samples_per_shard=3
        )
        assert half_way.wait(30)
        with pytest.raises(PublishConflictError, match=r"is being published with other contents by another publisher"):
            late(small_run["rows"](8))
        with pytest.raises(PublishConflictError):
            late(rows, config={"seed": 1})
        finish.set()
        first.result(timeout=30)

    assert verify(store.url("manifest.json")) == []
    assert not store.exists("publishing.json")


def test_of_two_runs_begun_at_once_with_different_recipes_one_is_refused(bucket):
    store = Store(bucket)
    together = threading.Barrier(2)

    def begin(recipe):
        together.wait()
        try:
            open_run(store, "pets", "first", recipe=recipe, config={})
        except RecipeMismatchError as error:
            return str(error)
        return "won"

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(begin, ["aaaaaaaaaaaa", "bbbbbbbbbbbb"]))

    assert sorted(result == "won" for result in results) == [False, True]
    assert any("holds samples of recipe" in result for result in results)


def test_runs_published_at_once_get_numbers_of_their_own_and_the_pointer_only_rises(bucket):
    store = Store(bucket)
    seen = []

    def publish_as(run_id):
        store.write(f"pets/runs/{run_id}/manifest.json", b"{}")
        move_latest(store, "pets", run_id)

    def watch():
        while not seen or seen[-1] < 4:
            latest = read_latest(store, "pets")
            seen.append(latest.sequence if latest else 0)

    with ThreadPoolExecutor(4) as pool:
        watching = pool.submit(watch)
        list(pool.map(publish_as, [f"run-{number}" for number in range(4)]))
        watching.result(timeout=60)

    assert len(store.list("pets/published")) == 4
    assert seen == sorted(seen)
