"""A small run of two classes, and a store that dies after a number of changes."""

import subprocess
import threading
from dataclasses import replace
from itertools import chain
from pathlib import Path
from uuid import uuid4

import fsspec
import numpy as np
import pyarrow as pa
import pytest

from datasets.readers.imageset import ImageSet
from datasets.runs.manifest import RunFacts
from datasets.runs.publish import publish
from datasets.runs.shards import Sample
from datasets.runs.tables import conform_rows
from datasets.storage.store import Store
from tests.real_rows import real_rows, real_samples


@pytest.fixture(autouse=True)
def no_exit_handlers_of_prefect(monkeypatch):
    """A process that has run a flow keeps Prefect's exit handlers, and they fail in its forked loader workers."""
    monkeypatch.setattr(threading, "_threading_atexits", [])


class Killed(BaseException):
    """Stands for a signal: no `except` of the code under test may catch it."""


class DyingStore(Store):
    """A real store that dies at the change after `budget` changes; its children share the budget."""

    def __init__(self, url, budget):
        super().__init__(url)
        self.budget = budget

    def _spend(self):
        if self.budget[0] == 0:
            raise Killed
        self.budget[0] -= 1

    def child(self, prefix):
        return DyingStore(self.url(prefix), self.budget)

    def write(self, path, data):
        self._spend()
        super().write(path, data)

    def create(self, path, data):
        self._spend()
        return super().create(path, data)

    def remove(self, path):
        self._spend()
        super().remove(path)


def make_rows(count, *, prefix="s", kept=True, unit="r0-u0"):
    labels = [i % 2 for i in range(count)]
    return pa.table(
        {
            "key": [f"{prefix}{i:04d}" for i in range(count)],
            "source": ["synthetic"] * count,
            "sampler": ["minority"] * count,
            "sample_index": list(range(count)),
            "unit": [unit] * count,
            "label": labels,
            "label_name": [["cat", "dog"][label] for label in labels],
            "group": [f"class={['cat', 'dog'][label]}" for label in labels],
            "minority_score": [i / 8 for i in range(count)],
            "kept": [kept] * count,
            "reason": ["kept" if kept else "rare"] * count,
        }
    )


def make_images(count, *, channels=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, channels), dtype=np.uint8)


def make_samples(rows, images):
    columns = zip(rows["key"].to_pylist(), images, rows["label"].to_pylist(), strict=True)
    return [Sample(key=key, image=image, label=label, record={"key": key}) for key, image, label in columns]


def image_set(sizes, *, channels=1, side=8, seed=0, **more):
    """A set in memory: sizes maps (class name, group) to the number of its images; classes in order of appearance."""
    class_names = list(dict.fromkeys(name for name, _ in sizes))
    named = [(class_names.index(name), group) for (name, group), count in sizes.items() for _ in range(count)]
    pixels = np.random.default_rng(seed).integers(0, 256, (len(named), side, side, channels), dtype=np.uint8)
    return ImageSet(
        name="toy",
        labels=np.array([label for label, _ in named], dtype=np.int64),
        groups=[group for _, group in named],
        source_ids=[f"toy/{number:05d}" for number in range(len(named))],
        class_names=class_names,
        image_shape=(side, side, channels),
        load=pixels.__getitem__,
        **more,
    )


def publish_set(folder, images, *, num_synthetic=None, samples_per_shard=10, extension="png"):
    """Publish a set's images as real ones and, of each group, some random images as synthetic ones. Returns its URL."""
    num_synthetic = num_synthetic or {}
    rows = real_rows(images)
    label_of = dict(zip(images.groups, images.labels.tolist(), strict=True))
    groups = [group for group, count in num_synthetic.items() for _ in range(count)]
    synthetic = pa.table(
        {
            "key": [f"s{number:06d}" for number in range(len(groups))],
            "source": pa.array(["synthetic"] * len(groups), pa.string()),
            "sampler": pa.array(["minority"] * len(groups), pa.string()),
            "label": pa.array([label_of[group] for group in groups], pa.int32()),
            "label_name": pa.array([images.class_names[label_of[group]] for group in groups], pa.string()),
            "group": pa.array(groups, pa.string()),
            "kept": pa.array([True] * len(groups), pa.bool_()),
            "reason": pa.array(["kept"] * len(groups), pa.string()),
        }
    )
    table = pa.concat_tables([conform_rows(part, name="rows") for part in (rows, synthetic)])
    noise = np.random.default_rng(1).integers(0, 256, (len(groups), *images.image_shape), dtype=np.uint8)
    drawn = (
        Sample(
            key=f"s{number:06d}",
            image=noise[number],
            label=label_of[group],
            record={"group": group, "source": "synthetic"},
        )
        for number, group in enumerate(groups)
    )
    facts = replace(FACTS, dataset="toy", class_names=images.class_names, quotas=num_synthetic)
    publish(
        Store(folder),
        facts=facts,
        samples=chain(real_samples(images, rows, extension=extension), drawn),
        metadata=table,
        samples_per_shard=samples_per_shard,
    )
    return f"{Store(folder).root}/manifest.json"


FACTS = RunFacts(
    dataset="pets",
    run_id="first",
    recipe="0123456789ab",
    config={"seed": 0},
    backbone={"name": "toy", "sha256": "0" * 64},
    versions={"numpy": "2"},
    class_names=["cat", "dog"],
    quotas={"class=cat": 3, "class=dog": 9},
    provenance="Drawn by a random number generator; CC0.",
)


def bytes_below(folder):
    """Relative path -> content of every file that is no lock and no temporary copy."""
    store = Store(folder)
    return {path: store.read(path) for path in store.list()}


@pytest.fixture
def small_run():
    """The parts of a small run, by name."""
    return {
        "facts": FACTS,
        "rows": make_rows,
        "images": make_images,
        "samples": make_samples,
        "bytes_below": bytes_below,
        "dying_store": DyingStore,
        "killed": Killed,
    }


@pytest.fixture
def make_image_set():
    """Makes a set of random images in memory, see `image_set`."""
    return image_set


@pytest.fixture
def make_published():
    """Publishes a set with synthetic images beside it, see `publish_set`."""
    return publish_set


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    """An empty store, on disk and in fsspec's memory."""
    if request.param == "local":
        yield Store(tmp_path / "store")
        return
    name = f"memory://{uuid4().hex}"
    yield Store(name)
    memory = fsspec.filesystem("memory")
    if memory.exists(name):
        memory.rm(name, recursive=True)


@pytest.fixture
def mounted_tmpfs(tmp_path):
    """A folder on a file system of 256 kB of its own; skips where this user may not mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.strip()}")
    yield Path(folder)
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def bucket(monkeypatch):
    """The URL of an empty folder in a bucket of a real S3 endpoint."""
    s3fs = pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"bucket-{uuid4().hex}"  # moto keeps what is in its buckets as long as the process lives
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}/store"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()
