"""A whole `minority augment` on very many real images, killed on the way: time, memory, and whether the bytes agree.

    .venv/bin/python -m benchmarks.large_run --images 10000 100000
    .venv/bin/python -m benchmarks.large_run --images 1000000 --work /data/large

The real images are those of `benchmarks.scale`. One candidate is drawn and judged for every ten of them, by one step of
a tiny U-Net of random weights, so that what is measured is everything but the network; half of them are wanted, and all
real training images are published beside them. Each size is run twice, in stores and caches of their own: once to its
end; and once killed (SIGKILL to the command and all its processes) while real images' features are made, killed again
while candidates are, killed once more while shards are written, and then to its end.

Memory is that of the largest process, looked at four times a second: own is what it held for itself (RssAnon; pages of
mapped files are the system's, and shared), all is the most that was resident (VmHWM). Of what is published the shards
and the table are compared, byte by byte. What is there already in the work folder is not made again.
"""

import argparse
import contextlib
import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.many_units import ROOT, memory_mib
from benchmarks.scale import CLASSES, SIDE, draw_tars

#: Real images a file of features, see `tasks/inputs`.
A_PART = 16_384
UNIT = 500
A_SHARD = 1000
SCORED = 2000
CLASS_NAMES = [f"class{i}" for i in range(CLASSES)]


@dataclass
class Command:
    """What one command took.

    Attributes:
        seconds: From its start to its end or its death.
        own_mib: The most that one of its processes held for itself.
        all_mib: The most that was resident of one of them.
        killed: What it was doing when it was killed; None where it ended by itself.
    """

    seconds: float = 0.0
    own_mib: float = 0.0
    all_mib: float = 0.0
    killed: str | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[10_000])
    parser.add_argument("--work", type=Path, default=Path("runs/large"))
    parser.add_argument("--runs", nargs="+", choices=["whole", "killed"], default=["whole", "killed"])
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    save_backbone(work / "backbone")
    print("| real images | run | s | own MiB | all MiB | shards and table |\n|---|---|---|---|---|---|", flush=True)
    for count in arguments.images:
        draw_tars(work / f"images-{count}", count)
        for run in arguments.runs:
            found = measured(work, count, run)
            for one in found["commands"]:
                what = f"{run}: killed at {one['killed']}" if one["killed"] else f"{run}: to its end"
                told = "" if one["killed"] else f"{found['files']:,}, {found['sha256'][:12]}"
                memory = f"{one['own_mib']:.0f} | {one['all_mib']:.0f}"
                print(f"| {count:,} | {what} | {one['seconds']:.0f} | {memory} | {told} |", flush=True)


def save_backbone(folder: Path) -> None:
    """A U-Net of random weights for ten classes, whose bottleneck has 64 channels; kept where it is there already."""
    from diffusers import UNet2DModel

    from minority.backbones import UNetSettings
    from minority.backbones import save_folder as save
    from minority.diffusion.schedule import NoiseSchedule

    if folder.exists():
        return
    channels = (2, 4, 8, 64)
    unet = UNet2DModel(
        sample_size=SIDE,
        block_out_channels=channels,
        down_block_types=("DownBlock2D",) * len(channels),
        up_block_types=("UpBlock2D",) * len(channels),
        layers_per_block=1,
        norm_num_groups=2,
        add_attention=False,
        num_class_embeds=CLASSES,
    )
    save(folder, unet, schedule=NoiseSchedule.cosine(100), settings=UNetSettings(num_classes=CLASSES))


def preset(work: Path, count: int, run: str) -> dict[str, Any]:
    """A file of one preset, as a user would write it."""
    candidates, training = count // 10, count * 98 // 100
    config = {
        "name": "large",
        "dataset": {
            "reader": "image_tars",
            "folder": str(work / f"images-{count}"),
            "tars": {"classes": CLASS_NAMES},
            "image_size": SIDE,
            "split": {"test_fraction": 0.01, "validation_fraction": 0.01, "imbalance": None},
        },
        "backbone": {"path": str(work / "backbone")},
        "features": {"kind": "backbone"},
        "sampler": {"steps": 1, "self_guidance": None},
        "scores": {"elbo_steps": 1, "draws": 1, "real_images": SCORED},
        "selection": {"rare_quantile": 0, "realism_floor": 0, "label_floor": 0},
        "plan": {
            "unit_size": UNIT,
            "quota": (training + candidates // 2) // CLASSES,
            "expected_yield": 0.5,
            "max_rounds": 1,
            "baseline": False,
        },
        "publish": {"samples_per_shard": A_SHARD},
        "downstream": {"seeds": 0},
        "store": str(work / f"{run}-{count}"),
        "device": "cpu",
    }
    deployment = {
        "name": "large",
        "description": "A whole run on very many real images.",
        "entrypoint": "flows/augment.py:augment",
        "parameters": {"config": config},
    }
    return {"deployments": [deployment]}


def measured(work: Path, count: int, run: str) -> dict[str, Any]:
    """Every command of one run, and what it published; read back where it has been measured before."""
    kept = work / f"{run}-{count}.json"
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_bytes())
        return found
    store, cache = work / f"{run}-{count}", work / f"{run}-{count}-cache"
    for folder in (store, cache):
        shutil.rmtree(folder, ignore_errors=True)
    commands = []
    for moment in (*(moments(count) if run == "killed" else ()), None):
        commands.append(command(work, count, run, store=store, cache=cache, moment=moment))
        print(f"{run} of {count:,}: {commands[-1]}", file=sys.stderr, flush=True)
    found = {"commands": [asdict(one) for one in commands]} | published(store)
    kept.write_text(json.dumps(found))
    return found


def moments(count: int) -> list[tuple[str, str, int]]:
    """When a run is killed: what it does then, and how many files of which name there are by then."""
    parts = math.ceil(count * 0.98 / A_PART)
    units = math.ceil(count / 10 / UNIT)
    shards = math.ceil(count * 1.03 / A_SHARD)
    return [
        ("features", "large/features/**/*.npy", max(1, parts // 2)),
        ("candidates", "large/runs/*/units/minority-*.json", max(1, units // 2)),
        ("shards", "large/runs/*/shards/*.tar", max(1, shards // 2)),
    ]


def command(
    work: Path, count: int, run: str, *, store: Path, cache: Path, moment: tuple[str, str, int] | None
) -> Command:
    """`minority augment`, to its end or to the moment at which it is killed."""
    presets = work / f"{run}-{count}.yaml"
    presets.write_text(yaml.safe_dump(preset(work, count, run)))
    called = [sys.executable, "-c", "from flows.command_line import main; main()", "augment", "large"]
    called += ["--config", str(presets)]
    environment = os.environ | {
        "MINORITY_CACHE": str(cache),
        "PREFECT_HOME": str(cache / "prefect"),
        "OMP_NUM_THREADS": "1",
    }
    found, began = Command(), time.monotonic()
    with (work / f"{run}-{count}.log").open("ab") as log:
        process = subprocess.Popen(called, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
        while process.poll() is None:
            for one in family(process.pid):
                found.own_mib = max(found.own_mib, memory_mib(one, "RssAnon"))
                found.all_mib = max(found.all_mib, memory_mib(one, "VmHWM"))
            if moment is not None and len(list(store.glob(moment[1]))) >= moment[2]:
                found.killed = moment[0]
                for one in family(process.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(one, signal.SIGKILL)
                process.wait()
                break
            time.sleep(0.25)
    found.seconds = time.monotonic() - began
    if found.killed is None and (moment is not None or process.returncode):
        told = (work / f"{run}-{count}.log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"the run ended with exit code {process.returncode}, where it was not to: {told}")
    return found


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for one in found:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            for file in Path(f"/proc/{one}/task").glob("*/children"):
                found += [int(child) for child in file.read_text().split()]
    return found


def published(store: Path) -> dict[str, Any]:
    """How many files of data a run has published, and one checksum over their names and bytes."""
    latest = json.loads((store / "large/latest.json").read_bytes())
    run = store / "large/runs" / latest["run_id"]
    files = [*sorted(run.glob("shards/*.tar")), run / "metadata.parquet"]
    joint = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            joint.update(f"{file.name} {hashlib.file_digest(opened, 'sha256').hexdigest()}\n".encode())
    return {"files": len(files), "sha256": joint.hexdigest()}


if __name__ == "__main__":
    main()
