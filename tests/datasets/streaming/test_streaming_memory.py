"""A large published set streams in memory that does not grow with it."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from datasets.readers.images.encoding import encode_png
from datasets.runs.publish import publish
from datasets.runs.shards import Sample
from datasets.storage.store import Store

ROOT = Path(__file__).parents[3]
GROUPS = ["class=cat", "class=dog"]

STREAM = """
import json, sys
from datasets.streaming.stream import PublishedStream, StreamSettings

def peak_mib():
    # Not getrusage: its peak is inherited from the process that started this one.
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

manifest, order = sys.argv[1:]
stream = PublishedStream(manifest, StreamSettings(order=order, shuffle_buffer=1000))
before = peak_mib()
count = 0
for sample in stream.samples():
    sample.pixels()
    count += 1
print(json.dumps({"count": count, "before": before, "grown": peak_mib() - before}))
"""


def publish_many(folder, facts, *, count):
    encoded = [encode_png(image) for image in np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), np.uint8)]
    rows = pa.table(
        {
            "key": [f"real-{number:08d}" for number in range(count)],
            "source": ["real"] * count,
            "sampler": ["real"] * count,
            "label": [number % 2 for number in range(count)],
            "label_name": [["cat", "dog"][number % 2] for number in range(count)],
            "group": [GROUPS[number % 2] for number in range(count)],
            "kept": [True] * count,
            "reason": ["kept"] * count,
        }
    )
    samples = (
        Sample(
            key=f"real-{number:08d}",
            image=encoded[number % len(encoded)],
            label=number % 2,
            record={"source": "real", "group": GROUPS[number % 2]},
        )
        for number in range(count)
    )
    publish(Store(folder), facts=replace(facts, quotas={}), samples=samples, metadata=rows)
    return f"{folder}/manifest.json"


def streamed(manifest, order):
    command = [sys.executable, "-c", STREAM, manifest, order]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_fifty_thousand_images_need_no_more_memory_than_five_thousand(tmp_path, small_run):
    manifests = {
        count: publish_many(tmp_path / str(count), small_run["facts"], count=count) for count in (5_000, 50_000)
    }

    for order in ("natural", "balanced"):
        small, large = (streamed(manifests[count], order) for count in (5_000, 50_000))

        # Measured: 73 MiB before and 6 MiB more while streaming, for either size (balanced: 100 and 4).
        assert large["count"] == 50_000
        # The buffer of 1,000 encoded images is some 4 MiB; an index of 50,000 keys and places would be 10 and more.
        assert large["grown"] < small["grown"] + 8
        assert large["grown"] < 60
