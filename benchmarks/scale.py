"""How time and memory grow with the number of real images, stage by stage.

    .venv/bin/python -m benchmarks.scale --images 10000 100000 --features 512
    .venv/bin/python -m benchmarks.scale --images 10000 100000 1000000 --features 512 --work /data/scale

The images are JPEGs of 64 pixels in WebDataset tars, drawn here, and decoded by the product's reader. Features come
from a cheap extractor (a random projection of the image at 8 x 8 pixels), so that what is measured is reading, storing
and comparing, and not a network. Every stage is a process of its own: its seconds are processor seconds, its memory is
the most that it held for itself (RssAnon; pages of mapped files are the system's, which all processes share) and the
most in total. The exponent is that of growth from one size to the next: 1 is proportional.

What is there already in the work folder (tars, and stages that are done) is not made again.
"""

import argparse
import io
import json
import math
import os
import resource
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

CLASSES = 10
SIDE = 64
A_TAR = 10_000
EVALUATED = 2_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--work", type=Path, default=Path("runs/scale"))
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES))
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        _measure(arguments.stage, arguments.images[0], arguments.features, arguments.work)
        return
    table: dict[str, list[dict[str, float]]] = {stage: [] for stage in arguments.stages}
    for count in arguments.images:
        draw_tars(arguments.work / f"images-{count}", count)
        for stage in arguments.stages:
            table[stage].append(_run(stage, count, arguments.features, arguments.work))
            print(f"{count:>9,} images, {stage}: {table[stage][-1]}", file=sys.stderr, flush=True)
    print_table(arguments.images, table)


def print_table(sizes: list[int], table: dict[str, list[dict[str, float]]]) -> None:
    """One row a stage: seconds and memory at each size, and the exponent from size to size."""
    head = ["stage", "of"]
    for i, count in enumerate(sizes):
        head += [f"{count:,}: s", "own MiB", "all MiB", *(["exponent"] if i else [])]
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for stage, found in table.items():
        row = [stage, STAGES[stage][1]]
        for i, one in enumerate(found):
            row += [f"{one['seconds']:.1f}", f"{one['own']:.0f}", f"{one['all']:.0f}"]
            if i:
                grown = math.log(max(one["seconds"], 1e-3) / max(found[i - 1]["seconds"], 1e-3))
                row.append(f"{grown / math.log(sizes[i] / sizes[i - 1]):.2f}")
        print("| " + " | ".join(row) + " |")


def draw_tars(folder: Path, count: int) -> None:
    """JPEGs of soft blobs in tars of 10,000, each with a class."""
    folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, count, A_TAR):
        path = folder / f"{first:08d}.tar"
        if path.exists():
            continue
        rng = np.random.default_rng(first)
        with tarfile.open(path.with_suffix(".part"), "w") as tar:
            for i in range(first, min(first + A_TAR, count)):
                coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
                data = io.BytesIO()
                Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(data, "JPEG", quality=85)
                for name, content in ((f"{i:08d}.jpg", data.getvalue()), (f"{i:08d}.cls", b"%d" % (i % CLASSES))):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        path.with_suffix(".part").rename(path)


class CheapExtractor:
    """A random projection of images at 8 x 8 pixels."""

    def __init__(self, dimensions: int) -> None:
        self.recipe = f"cheap-{dimensions}"
        self.matrix = np.random.default_rng(0).normal(size=(192, dimensions)).astype(np.float32) / 14

    def __call__(self, images: Any) -> np.ndarray:
        """Features (N, dimensions) of images (N, 64, 64, 3) uint8."""
        found = np.empty((len(images), self.matrix.shape[1]), dtype=np.float32)
        for start in range(0, len(images), 1024):
            part = images[start : start + 1024].astype(np.float32) / 255
            small = part.reshape(len(part), 8, SIDE // 8, 8, SIDE // 8, 3).mean(axis=(2, 4))
            found[start : start + 1024] = small.reshape(len(part), -1) @ self.matrix
        return found


def _config(count: int, work: Path) -> Any:
    from benchmarks.many_units import save_backbone
    from tasks.config.presets import validate
    from tasks.config.runs import AugmentConfig

    backbone = work / "backbone"
    if not backbone.exists():
        save_backbone(backbone, side=SIDE, channels=3)
    settings = {
        "name": "scale",
        "store": str(work / f"store-{count}"),
        "dataset": {
            "reader": "image_tars",
            "folder": str(work / f"images-{count}"),
            "tars": {"classes": [f"class{i}" for i in range(CLASSES)]},
            "image_size": SIDE,
            "split": {"test_fraction": 0.01, "validation_fraction": 0.01, "imbalance": None},
        },
        "backbone": {"path": str(backbone)},
        "features": {"kind": "backbone"},
        "device": "cpu",
    }
    return validate(AugmentConfig, settings, overrides={})


def _models(count: int, dimensions: int, work: Path) -> Any:
    from tasks.inputs.workspace import open_models

    return replace(open_models(_config(count, work)), extract=CheapExtractor(dimensions))


def _read(count: int, dimensions: int, work: Path) -> Callable[[], object]:
    from tasks.inputs.real_data import load_real_data

    def read() -> object:
        return load_real_data(_config(count, work).dataset).digest

    return read


def _features(count: int, dimensions: int, work: Path) -> Callable[[], object]:
    models = _models(count, dimensions, work)
    return lambda: models.features


def _reference(count: int, dimensions: int, work: Path) -> Callable[[], object]:
    from tasks.inputs.fitted import fitted_filter

    models = _models(count, dimensions, work)
    models.features  # noqa: B018 - made by the stage before
    return lambda: fitted_filter(models).thresholds


def _build_filter(count: int, dimensions: int, work: Path) -> Callable[[], object]:
    from tasks.inputs.fitted import fitted_filter

    models = _models(count, dimensions, work)
    candidate_filter = fitted_filter(models)
    accuracy = candidate_filter.reference.index.accuracy
    print(
        f"recall {accuracy.recall:.4f}, rare {accuracy.rare_recall:.4f}, "
        f"distances too large by {accuracy.overestimate:.2%}",
        file=sys.stderr,
    )
    positions = np.random.default_rng(1).choice(len(models.train_images), EVALUATED, replace=False)
    images = models.train_images[positions] // 2 + 40
    features, labels = models.extract(images), models.real.train.labels[positions]
    return lambda: candidate_filter.evaluate(features, labels, images=images).passed.sum()


def _choose(count: int, dimensions: int, work: Path) -> Callable[[], object]:
    from datasets.storage.store import Store
    from minority.selection.policy import asked_columns
    from tasks.augment.candidates import choose_candidates, name_near_duplicates, read_rows

    made, groups = count // 10, [f"class=class{i}" for i in range(CLASSES)]
    store = Store(work / f"candidates-{count}")
    plan = _write_candidates(store, made, groups)
    columns = ("key", "group", "round", "random_projection", *asked_columns("rare"))

    def run() -> object:
        rows = read_rows(store, plan, columns=columns)
        chosen = choose_candidates(rows, groups=groups, wanted=[made // 100] * CLASSES, spacing=0.1)
        return name_near_duplicates(chosen, radius=0.1)

    return run


def _write_candidates(store: Any, made: int, groups: list[str]) -> Any:
    """Units of candidates as an augment run writes them, of 500 random ones each, and their plan."""
    from datasets.runs.units import read_receipt, write_unit
    from tasks.augment.planning import RoundPlan

    rng = np.random.default_rng(0)
    labels = rng.integers(CLASSES, size=made).astype(np.int32)
    plan = RoundPlan(sampler="minority", round=0, unit_size=500, indices=np.arange(made), groups=labels)
    shares = {"rare": 0.4, "valid": 0.6, "new": 0.9, "label_kept": 0.8}
    for unit in plan:
        many = unit.num_samples
        projections = rng.normal(size=(many, 32)).astype(np.float32)
        verdicts = {name: rng.random(many) < share for name, share in shares.items()}
        if read_receipt(store, unit.unit, recipe="0", num_samples=many) is not None:
            continue
        facts = {"source": "synthetic", "sampler": "minority", "round": 0, "kept": False, "reason": "not chosen yet"}
        columns = {name: [value] * many for name, value in facts.items()} | {
            "key": [f"s{i:08d}" for i in unit.indices],
            "label": list(unit.groups),
            "label_name": [f"class{i}" for i in unit.groups],
            "group": [groups[i] for i in unit.groups],
            "random_projection": projections.tolist(),
        }
        rows = pa.table(columns | {name: value.tolist() for name, value in verdicts.items()})
        write_unit(store, unit.unit, np.zeros((many, 8, 8, 3), dtype=np.uint8), rows, recipe="0")
    return plan


def _publish(count: int, dimensions: int, work: Path) -> Callable[[], object]:
    from datasets.runs.manifest import RunFacts
    from datasets.runs.publish import publish
    from datasets.runs.shards import Sample, encode_png
    from datasets.storage.store import Store

    made, names = count // 10, [f"class{i}" for i in range(CLASSES)]
    coarse = np.random.default_rng(0).integers(0, 256, (1000, 4, 4, 3), dtype=np.uint8)
    pictures = [Image.fromarray(one).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for one in coarse]
    encoded = [encode_png(np.asarray(picture)) for picture in pictures]
    store = Store(work / f"published-{count}")
    facts = RunFacts(
        dataset="scale",
        run_id="one",
        recipe="0",
        config={},
        backbone={},
        versions={},
        class_names=names,
        provenance="Random.",
    )

    def record(i: int) -> dict[str, object]:
        return {"source": "synthetic", "label_name": names[i % CLASSES], "group": f"class=class{i % CLASSES}"}

    samples = (
        Sample(key=f"s{i:08d}", image=encoded[i % 1000], label=i % CLASSES, record=record(i)) for i in range(made)
    )

    def rows() -> Iterator[pa.Table]:
        for first in range(0, made, 1000):
            part = range(first, min(first + 1000, made))
            same = {"sampler": "minority", "kept": True, "reason": "kept"}
            of = [record(i) | same | {"key": f"s{i:08d}", "label": i % CLASSES} for i in part]
            yield pa.Table.from_pylist(of)

    return partial(publish, store, facts=facts, samples=samples, metadata=rows)


def _verify(count: int, dimensions: int, work: Path) -> Callable[[], object]:
    from datasets.runs.verify import verify

    def run() -> object:
        problems = verify(str(work / f"published-{count}" / "manifest.json"))
        assert problems == [], problems
        return problems

    return run


def _loader(count: int, dimensions: int, work: Path) -> Callable[[], object]:
    from itertools import islice

    from datasets.streaming.loader import load_balanced

    def first() -> object:
        return len(list(islice(load_balanced(str(work / f"published-{count}" / "manifest.json")), 256)))

    return first


def _classifier(count: int, dimensions: int, work: Path) -> Callable[[], object]:
    from minority.downstream.arms import REAL_ARMS
    from minority.downstream.settings import DownstreamSettings, NetworkSettings
    from minority.downstream.training import train
    from tasks.downstream.data import real_images
    from tasks.inputs.real_data import load_real_data

    data = real_images(load_real_data(_config(count, work).dataset))
    settings = DownstreamSettings(steps=100, batch_size=64, network=NetworkSettings(width=8))
    return lambda: train(REAL_ARMS[0], data, learning_rate=1e-3, weight_decay=0.1, settings=settings, seed=0)


#: Stage -> what prepares it and returns what is timed, and what its seconds are of.
STAGES: dict[str, tuple[Callable[[int, int, Path], Callable[[], object]], str]] = {
    "read": (_read, "all real images, decoded once"),
    "open": (_read, "the same again, as every worker does"),
    "features": (_features, "all real images"),
    "reference": (_reference, "all real images"),
    "candidate_filter": (_build_filter, f"{EVALUATED:,} candidates"),
    "choose": (_choose, "N / 10 candidates"),
    "publish": (_publish, "N / 10 images"),
    "verify": (_verify, "N / 10 images"),
    "loader": (_loader, "256 images of N / 10"),
    "classifier": (_classifier, "100 steps of 64 real images"),
}


def _run(stage: str, count: int, dimensions: int, work: Path) -> dict[str, float]:
    kept = work / f"{stage}-{count}-{dimensions}.json"
    if not kept.exists():
        own = ["--images", str(count), "--features", str(dimensions), "--work", str(work), "--stage", stage]
        environment = os.environ | {"MINORITY_CACHE": str(work / "cache")}
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.scale", *own], env=environment, stdout=subprocess.PIPE, check=True
        )
        kept.write_bytes(done.stdout.splitlines()[-1])
    found: dict[str, float] = json.loads(kept.read_bytes())
    return found


def _measure(stage: str, count: int, dimensions: int, work: Path) -> None:
    import torch

    torch.set_num_threads(1)
    held = _Watch()
    run = STAGES[stage][0](count, dimensions, work)
    started = time.process_time()
    run()
    seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "own": held.most(), "all": peak}))


class _Watch:
    """The most memory that this process has held for itself, looked at twenty times a second, in MiB."""

    def __init__(self) -> None:
        self._most = 0.0
        threading.Thread(target=self._look, daemon=True).start()

    def most(self) -> float:
        return max(self._most, self._now())

    def _look(self) -> None:
        while True:
            self._most = max(self._most, self._now())
            time.sleep(0.05)

    def _now(self) -> float:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return int(line.split()[1]) / 1024
        return 0.0


if __name__ == "__main__":
    main()
