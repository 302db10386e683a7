"""Publishing the rows of very many small units needs little memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

PUBLISH = """
import json, sys
import pyarrow as pa
from datasets.runs.manifest import RunFacts
from datasets.runs.publish import publish
from datasets.storage.store import Store

folder, count = sys.argv[1], int(sys.argv[2])
facts = RunFacts(
    dataset="pets", run_id="first", recipe="0123456789ab", config={}, backbone={"name": "toy", "sha256": "0" * 64},
    versions={}, class_names=["cat"], provenance="Drawn by a random number generator; CC0.",
)
fixed = {"source": "synthetic", "sampler": "minority", "label_name": "cat", "group": "class=cat", "reason": "common"}

def rows():
    for number in range(count):
        yield pa.table({name: [value] for name, value in fixed.items()} | {
            "key": [f"s{number:08d}"], "unit": [f"minority-00-{number:05d}"], "label": pa.array([0], pa.int32()),
            "kept": [False], "guidance": ["x" * 400],
        })

def peak_mib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

publish(Store(folder + "/warm"), facts=facts, samples=[], metadata=lambda: [next(rows())])
before = peak_mib()
publish(Store(folder + "/many"), facts=facts, samples=[], metadata=rows)
print(json.dumps(peak_mib() - before))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_eight_thousand_units_of_one_sample_are_published_in_some_mebibytes(tmp_path):
    command = [sys.executable, "-c", PUBLISH, str(tmp_path), "8000"]

    grown = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)

    # 8,000 rows of some 700 bytes, and copies of them while the table is written; held piece by piece: some 300 MiB.
    assert grown < 60
