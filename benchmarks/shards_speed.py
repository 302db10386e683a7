"""How fast shards are written and read, against what the machine allows. Prints a Markdown table.

    python -m benchmarks.shards_speed [--images 5000] [--side 64] [--repeat 5] [--folder PLACE]

Writing is compared with writing the same bytes as one tar after another by Python's tarfile; reading with bare
webdataset decoding the same shards. Runs of either kind alternate, and the medians are compared.
"""

import argparse
import gc
import io
import os
import platform
import shutil
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import webdataset as wds

from datasets.runs.manifest import RunFacts
from datasets.runs.publish import publish
from datasets.runs.shards import Sample
from datasets.storage.canonical import canonical_json
from datasets.storage.local_files import replace_file
from datasets.storage.store import Store
from datasets.streaming.stream import PublishedStream, StreamSettings

PER_SHARD = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="where to write; the system's temporary folder")
    arguments = parser.parse_args()
    samples = make_samples(arguments.images, side=arguments.side)
    members = [member for sample in samples for member in members_of(sample)]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        root = Path(folder)
        ours, raw = root / "ours", root / "raw"
        writing = alternate(
            {
                "raw": lambda: write_raw(raw, members, synced=True),
                "unsynced": lambda: write_raw(raw, members, synced=False),
                "ours": lambda: write_ours(ours, samples),
            },
            repeat=arguments.repeat,
        )
        size = sum(path.stat().st_size for path in (ours / "shards").iterdir())
        reading, passing = (
            alternate({"bare": partial(read_bare, ours, decode), "ours": partial(read_ours, ours, decode)}, repeat)
            for decode, repeat in ((True, arguments.repeat), (False, arguments.repeat))
        )
    print(
        f"{arguments.images} images of {arguments.side} x {arguments.side}, {size / 2**20:.0f} MiB in shards of "
        f"{PER_SHARD}; Python {platform.python_version()}, {os.cpu_count()} cores; medians of {arguments.repeat}.\n"
    )
    print("| work | limit | limit, images/s | ours, images/s | ours / limit |\n|---|---|---|---|---|")
    count = arguments.images
    row("write encoded images", "tarfile, same bytes, synced to disk", writing["raw"], writing["ours"], count)
    row("write encoded images", "tarfile, same bytes, not synced", writing["unsynced"], writing["ours"], count)
    row("read and decode", "bare webdataset", reading["bare"], reading["ours"], count)
    row("read, not decoded", "bare webdataset", passing["bare"], passing["ours"], count)


def row(work: str, limit: str, theirs: float, ours: float, count: int) -> None:
    print(f"| {work} | {limit} | {count / theirs:,.0f} | {count / ours:,.0f} | {100 * theirs / ours:.0f} % |")


def alternate(jobs: dict[str, Callable[[], None]], repeat: int) -> dict[str, float]:
    """Median seconds of each job; they take turns, so that a slow moment of the machine hits both."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeat):
        for name, job in jobs.items():
            gc.collect()
            begin = time.perf_counter()
            job()
            seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def make_samples(count: int, *, side: int) -> list[Sample]:
    """Smooth random images, already encoded, so that the encoder is no part of the measurement."""
    rng = np.random.default_rng(0)
    samples = []
    for number in range(count):
        coarse = rng.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
        pixels = coarse.repeat(8, axis=0).repeat(8, axis=1)
        pixels[rng.integers(side)] = rng.integers(0, 256, (side, 3))
        pixels[:, : side // 2] ^= rng.integers(0, 16, (side, side // 2, 3), dtype=np.uint8)
        record = {"source": "real", "label_name": "cat", "group": f"class=cat,fur={number % 2}"}
        image = Sample(key="x", image=pixels, label=0, record=record).encoded()
        samples.append(Sample(key=f"real-{number:08d}", image=image, label=number % 2, record=record))
    return samples


def members_of(sample: Sample) -> list[tuple[str, bytes]]:
    contents = {"cls": b"%d" % sample.label, "json": canonical_json(dict(sample.record)), "png": sample.encoded()}
    return [(f"{sample.key}.{name}", content) for name, content in contents.items()]


def write_raw(folder: Path, members: list[tuple[str, bytes]], *, synced: bool) -> None:
    """The limit: the same members by tarfile."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for begin in range(0, len(members), 3 * PER_SHARD):
        sink = io.BytesIO()
        with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for name, content in members[begin : begin + 3 * PER_SHARD]:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        path = folder / f"raw-{begin:06d}.tar"
        if synced:
            replace_file(path, sink.getvalue())
        else:
            path.write_bytes(sink.getvalue())


def write_ours(folder: Path, samples: list[Sample]) -> None:
    """A whole publication: checks, checksums, table, card and manifest included."""
    shutil.rmtree(folder, ignore_errors=True)
    count = len(samples)
    rows = pa.table(
        {
            "key": [sample.key for sample in samples],
            "source": ["real"] * count,
            "sampler": ["real"] * count,
            "label": [sample.label for sample in samples],
            "label_name": [["cat", "dog"][sample.label] for sample in samples],
            "group": [str(sample.record["group"]) for sample in samples],
            "kept": [True] * count,
            "reason": ["kept"] * count,
        }
    )
    facts = RunFacts(
        dataset="bench",
        run_id="one",
        recipe="0",
        config={},
        backbone={},
        versions={},
        class_names=["cat", "dog"],
        provenance="Random.",
    )
    publish(Store(folder), facts=facts, samples=samples, metadata=rows, samples_per_shard=PER_SHARD)


def read_bare(folder: Path, decode: bool) -> None:
    urls = sorted(str(path) for path in (folder / "shards").iterdir())
    shards = wds.WebDataset(urls, shardshuffle=False)
    count = sum(1 for _ in (shards.decode("rgb8") if decode else shards))
    assert count > 0


def read_ours(folder: Path, decode: bool) -> None:
    stream = PublishedStream(str(folder / "manifest.json"), StreamSettings(shuffle_buffer=0))
    count = 0
    for sample in stream.samples():
        if decode:
            sample.pixels()
        count += 1
    assert count > 0


if __name__ == "__main__":
    main()
