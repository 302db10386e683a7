"""Training jobs that open the newest dataset while another process publishes."""

import subprocess
import sys
from pathlib import Path

import pytest

from datasets import load_balanced
from datasets.runs.latest import read_latest
from datasets.storage.store import Store
from datasets.streaming.published import read_published

ROOT = Path(__file__).resolve().parents[3]
# Publishes a run several times under new names: every file by itself, the manifest last, then the pointer.
PUBLISHER = """
import sys
from pathlib import Path
from datasets.runs.latest import move_latest
from datasets.storage.store import Store
source, store, count = Path(sys.argv[1]), Store(sys.argv[2]), int(sys.argv[3])
files = sorted((path for path in source.rglob("*") if path.is_file()), key=lambda path: path.name == "manifest.json")
for number in range(count):
    for path in files:
        store.write(f"pets/runs/run-{number}/{path.relative_to(source).as_posix()}", path.read_bytes())
    move_latest(store, "pets", f"run-{number}")
"""


def test_whoever_reads_the_newest_dataset_while_it_moves_never_sees_half_of_one(
    tmp_path, make_image_set, make_published
):
    sizes = {("cat", "class=cat,fur=1"): 20, ("dog", "class=dog,fur=1"): 9}
    manifest = Path(make_published(tmp_path / "source", make_image_set(sizes), num_synthetic={"class=dog,fur=1": 6}))
    store, count = Store(tmp_path / "store"), 30
    command = [sys.executable, "-c", PUBLISHER, manifest.parent, tmp_path / "store", str(count)]
    seen = []

    with subprocess.Popen(command, cwd=ROOT) as publisher:
        while publisher.poll() is None or not seen or seen[-1] < count:
            latest = read_latest(store, "pets")
            if latest is None:
                assert publisher.poll() in (None, 0)
                continue
            seen.append(latest.sequence)
            newest = str(tmp_path / "store" / "pets" / latest.manifest)
            images = read_published(newest)
            assert len({sample["key"] for sample in load_balanced(newest, order="natural")}) == len(images) == 35
            assert sum(1 for _ in images.decoded()) == 35

    assert publisher.returncode == 0
    assert seen == sorted(seen)
    assert len(set(seen)) > 1


def test_reading_in_one_process_needs_no_shared_memory(tmp_path, make_image_set, make_published):
    manifest = make_published(tmp_path / "run", make_image_set({("cat", "c"): 12, ("dog", "d"): 7}))
    script = (
        "import sys; from torch.utils.data import DataLoader; from datasets import load_balanced; "
        "stream = load_balanced(sys.argv[1], order='natural'); "
        "print(sum(len(batch['key']) for batch in DataLoader(stream, batch_size=4)))"
    )
    # A namespace of its own, in which /dev/shm can be neither read nor written.
    hidden = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        'mount -t tmpfs -o mode=000,size=4k,nr_inodes=1 none /dev/shm && exec "$@"',
        "-",
    ]
    if subprocess.run([*hidden, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody hide /dev/shm")

    done = subprocess.run(
        [*hidden, sys.executable, "-c", script, manifest], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout == "19\n"
