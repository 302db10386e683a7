"""A published run with real and synthetic images, odd names, missing and infinite scores; and environments of tools."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from datasets.runs.manifest import Manifest
from datasets.runs.publish import publish
from datasets.runs.shards import Sample
from datasets.storage.store import Store
from tests.datasets.conftest import FACTS

CLASSES = ["test", "Ärzte/innen", "cat"]
COUNT = 24
_SCRIPTS = Path(__file__).with_name("reading")


def rows_of(count=COUNT):
    """Every third image is real; scores are missing, infinite or not."""
    numbers = range(count)
    real = [number % 3 == 0 for number in numbers]
    scores = [None if number % 5 == 1 else float("inf") if number % 5 == 2 else number / 8 for number in numbers]
    return pa.table(
        {
            "key": [f"real-{n:06d}" if real[n] else f"s{n:08d}" for n in numbers],
            "source": ["real" if is_real else "synthetic" for is_real in real],
            "sampler": ["real" if is_real else "minority" for is_real in real],
            "source_id": [f"set/{n:05d}.png" if real[n] else None for n in numbers],
            "sample_index": pa.array([None if real[n] else n for n in numbers], pa.int64()),
            "seed": pa.array([None if real[n] else 7 for n in numbers], pa.int64()),
            "unit": [f"u{n % 2}" for n in numbers],
            "label": [n % len(CLASSES) for n in numbers],
            "label_name": [CLASSES[n % len(CLASSES)] for n in numbers],
            "group": [f"class={CLASSES[n % len(CLASSES)]}" for n in numbers],
            "minority_score": [n / 8 for n in numbers],
            "rarity_score": pa.array(scores, pa.float32()),
            "rare": pa.array([None if real[n] else True for n in numbers], pa.bool_()),
            "kept": [True] * count,
            "reason": ["real" if is_real else "kept" for is_real in real],
            "random_projection": pa.array([[n / 4, -n / 4] for n in numbers], pa.list_(pa.float32())),
        }
    )


def publish_odd(folder, *, channels=3, extra=None):
    """Publish the run. Returns its folder and {key: (label, pixels)}."""
    rows = rows_of()
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 9, 7, channels), dtype=np.uint8)
    samples = [
        Sample(
            key=row["key"],
            image=image,
            label=row["label"],
            record={name: row[name] for name in ("source", "group", "seed", "sample_index") if row[name] is not None},
        )
        for row, image in zip(rows.to_pylist(), images, strict=True)
    ]
    refused = rows.slice(0, 2).set_column(0, "key", pa.array(["x1", "x2"]))
    refused = refused.set_column(refused.schema.get_field_index("kept"), "kept", pa.array([False, False]))
    facts = replace(
        FACTS, class_names=CLASSES, quotas={}, backbone={"name": "toy", "sha256": "ab" * 32}, **(extra or {})
    )
    publish(
        Store(folder),
        facts=facts,
        samples=samples,
        metadata=pa.concat_tables([rows, refused.cast(rows.schema)]),
        samples_per_shard=10,
    )
    return Path(folder), {s.key: (s.label, s.image) for s in samples}


@pytest.fixture
def odd_run(tmp_path):
    """(folder, {key: (label, pixels)}) of a published run of 24 images."""
    return publish_odd(tmp_path / "pets" / "runs" / "first")


@pytest.fixture
def manifest_of():
    """Reads the manifest in a folder."""
    return lambda folder: Manifest.from_json((folder / "manifest.json").read_bytes())


@pytest.fixture
def read_elsewhere(tmp_path):
    """Runs a script of reading/ by the Python that an environment variable names, without this project.

    read_elsewhere("MINORITY_HF_PYTHON", "imagefolder.py", folder) gives what the script prints as JSON; the test is
    skipped where the variable is not set, with the command that makes the environment.
    """

    def run(variable, script, *arguments, install):
        python = os.environ.get(variable)
        if not python:
            pytest.skip(
                f"{variable} is not set: python -m venv ENV && ENV/bin/pip install {install}; then ENV/bin/python"
            )
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": "1",
            "FIFTYONE_DO_NOT_TRACK": "true",
            **{name: value for name, value in os.environ.items() if name.startswith("FIFTYONE_")},
        }
        (tmp_path / "home").mkdir(exist_ok=True)
        done = subprocess.run(
            [python, str(_SCRIPTS / script), *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run
