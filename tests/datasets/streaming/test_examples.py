"""The examples run as they stand, on a small published set."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SIZES = {("cat", "class=cat"): 30, ("dog", "class=dog"): 8}


@pytest.fixture
def manifest(tmp_path, make_image_set, make_published):
    return make_published(tmp_path / "run", make_image_set(SIZES, channels=3), num_synthetic={"class=dog": 12})


def run(name, *arguments):
    command = [sys.executable, "-W", "error::UserWarning", str(ROOT / "examples" / name), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=None)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_training_job_of_its_own_takes_forty_lines_and_runs(manifest):
    output = run("train_on_shards.py", manifest, "2")

    assert "epoch 1: loss" in output
    assert len((ROOT / "examples" / "train_on_shards.py").read_text().splitlines()) <= 45


def test_bare_webdataset_counts_groups_and_sources(manifest):
    output = run("bare_webdataset.py", str(Path(manifest).parent / "shards"))

    assert [line.split() for line in output.splitlines()] == [
        ["class=cat", "real", "30"],
        ["class=dog", "real", "8"],
        ["class=dog", "synthetic", "12"],
    ]


def test_pandas_chooses_first_and_opens_little(manifest):
    assert "opened 10 images of" in run("pandas_first.py", str(Path(manifest).parent))
