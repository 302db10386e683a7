"""`augment/celeba` end to end, as its user runs it: CelebA's layout, an unconditional ADM checkpoint, server, worker.

The faces are portraits of the US Congress, where women are rare; the backbone is trained here for a minute. The worker
runs from a checkout of its own, which alone holds the images and the checkpoint.
"""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from datasets.readers.celeba import read_celeba
from datasets.runs.manifest import Manifest
from datasets.runs.verify import verify
from minority.backbones import PRESETS, convert, load_adm
from minority.backbones.adm import layout_of
from minority.backbones.adm_layout import expected_shapes, parameter_names
from minority.diffusion.schedule import NoiseSchedule
from minority.training import TrainingSettings, train_denoiser

ROOT = Path(__file__).resolve().parents[2]
PORTRAITS = Path(os.environ.get("MINORITY_DATA", "nowhere"), "congress")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.realdata,
    pytest.mark.skipif(not PORTRAITS.is_dir(), reason="needs MINORITY_DATA/congress, portraits of the US Congress"),
]

#: Portraits of each (is a man, served after 1960) in the training part; a quarter as many validate, and a quarter test.
COUNTS = {(1, 0): 160, (1, 1): 160, (0, 0): 24, (0, 1): 80}
#: What the tiny U-Net has otherwise than the preset celeba64.
FLAGS = {
    "image_size": 16,
    "num_channels": 32,
    "channel_mult": [1, 2],
    "num_res_blocks": 1,
    "attention_resolutions": [8],
    "num_head_channels": 32,
    "learn_sigma": False,
}
QUOTA = 100
OVERRIDES = {
    "dataset.target": "Male",
    "dataset.protected": "After_1960",
    "dataset.image_size": 16,
    "backbone.flags": {"preset": "celeba64", **FLAGS},
    "sampler.steps": 20,
    "sampler.batch_size": 64,
    "scores.elbo_steps": 2,
    "scores.draws": 1,
    "labeller": {"steps": 100, "width": 16, "flip": True},
    # The tiny backbone's faces are blurred: what is asked of them is little.
    "selection.rare_quantile": 0.3,
    "selection.realism_floor": 0.6,
    "selection.label_floor": 0.5,
    "plan": {"quota": QUOTA, "expected_yield": 0.4, "candidates_per_image": 2.5, "unit_size": 64, "max_rounds": 2},
    "publish.samples_per_shard": 200,
    "downstream.arms": ["real", "real+minority"],
    "downstream.seeds": 1,
    "downstream.budget": {"network": {"width": 16}, "steps": 20, "trials": 1, "tuning_seeds": 1},
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the project elsewhere, with data/celeba and checkpoints/celeba64.pt in it."""
    copy = tmp_path_factory.mktemp("elsewhere") / "checkout"
    unwanted = shutil.ignore_patterns(".*", "runs", "data", "checkpoints", "*.egg-info", "__pycache__", "tests")
    shutil.copytree(ROOT, copy, ignore=unwanted)
    write_celeba(copy / "data" / "celeba")
    faces = read_celeba(copy / "data" / "celeba", target="Male", protected="After_1960", image_size=16)
    (copy / "checkpoints").mkdir()
    train_adm(copy / "checkpoints" / "celeba64.pt", faces.images(range(len(faces))))
    return copy


def write_celeba(folder):
    """Portraits in CelebA's layout: 178 x 218 JPEGs and the two lists."""
    rows = pd.read_parquet(PORTRAITS / "labels.parquet")
    rows["group"] = list(zip(rows["sex"] == "male", rows["last_congress_start_year"] >= 1960, strict=True))
    parts = [("train", "train", 1.0), ("val", "validation", 0.25), ("test", "test", 0.25)]
    chosen = [
        (name, group, part)
        for part, (theirs, _, share) in enumerate(parts)
        for group, count in COUNTS.items()
        for name in rows[(rows["split"] == theirs) & (rows["group"] == group)]["file"][: int(count * share)]
    ]
    (folder / "img_align_celeba").mkdir(parents=True)
    attributes, partition = [], []
    with zipfile.ZipFile(PORTRAITS / "images.zip") as archive:
        for number, (name, (man, recent), part) in enumerate(chosen, start=1):
            portrait = Image.open(io.BytesIO(archive.read(name))).convert("RGB").resize((178, 178))
            face = Image.new("RGB", (178, 218))
            face.paste(portrait, (0, 20))  # the square that the reader cuts out
            face.save(folder / "img_align_celeba" / f"{number:06d}.jpg", quality=90)
            attributes.append(f"{number:06d}.jpg {2 * man - 1} {2 * recent - 1}")
            partition.append(f"{number:06d}.jpg {part}")
    header = [str(len(attributes)), "Male After_1960"]
    (folder / "list_attr_celeba.txt").write_text("\n".join(header + attributes) + "\n")
    (folder / "list_eval_partition.txt").write_text("\n".join(partition) + "\n")


def train_adm(path, faces):
    """Train an unconditional ADM U-Net and store it under ADM's own tensor names."""
    flags = replace(PRESETS["celeba64"], **{name: tuple(v) if isinstance(v, list) else v for name, v in FLAGS.items()})
    layout = layout_of(flags, {})
    generator = torch.Generator().manual_seed(0)
    shapes = expected_shapes(layout)
    start = {name: initial(name, shape, generator) for name, shape in shapes.items()}
    unet = convert(start, flags).requires_grad_(True)
    settings = TrainingSettings(steps=300, batch_size=16, learning_rate=1e-3, ema_decay=0.99, augmentation=None)
    train_denoiser(unet, faces, None, schedule=NoiseSchedule.cosine(1000), settings=settings)
    torch.save(to_adm(unet.state_dict(), layout), path)
    x, t = torch.randn(2, 3, 16, 16, generator=generator), torch.tensor([10, 700])
    with torch.no_grad():
        assert torch.equal(load_adm(path, preset="celeba64", **FLAGS).denoiser(x, t, None).eps, unet(x, t).sample)


def initial(name, shape, generator):
    """Normalisations begin as identities, everything else by fan-in."""
    if len(shape) == 1:
        return torch.full(shape, float(name.endswith("weight")))
    return torch.randn(shape, generator=generator) / np.sqrt(np.prod(shape[1:]))


def to_adm(tensors, layout):
    """The tensors of a diffusers U-Net under their names and shapes in ADM's checkpoints."""
    shapes = expected_shapes(layout)
    renamed = {}
    for adm, name in parameter_names(layout):
        if adm in shapes:
            parts = [name.replace("to_qkv", part) for part in ("to_q", "to_k", "to_v")] if "to_qkv" in name else [name]
            renamed[adm] = torch.cat([tensors[part] for part in parts]).reshape(shapes[adm]).clone()
    return renamed


@pytest.fixture(scope="module")
def run(prefect, ask_api, checkout, tmp_path_factory):
    """`prefect deployment run augment/celeba` on a worker of that checkout: its output, and the run."""
    created = prefect("work-pool", "create", "gpu", "--type", "process", "--overwrite")
    assert created.returncode == 0, created.stdout + created.stderr
    deployed = prefect("deploy", "--name", "augment/celeba")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    elsewhere = {"PYTHONPATH": str(checkout), "MINORITY_DATA": ""}
    worker = prefect("worker", "start", "--pool", "gpu", "--limit", "1", start=True, cwd=checkout.parent, **elsewhere)
    try:
        overrides = f"overrides={json.dumps(OVERRIDES)}"
        watched = prefect(
            "deployment", "run", "augment/celeba", "-p", overrides, "--watch", "--watch-interval", "2", seconds=3000
        )
    finally:
        worker.send_signal(signal.SIGINT)
        worker.wait(timeout=60)
    newest = {"sort": "EXPECTED_START_TIME_DESC", "limit": 1, "flow_runs": {"deployment_id": {"is_null_": False}}}
    (flow_run,) = ask_api("flow_runs/filter", newest)
    return watched, flow_run


@pytest.fixture(scope="module")
def published(run, checkout):
    """The manifest of what it published: in the worker's checkout, as the preset's store says."""
    watched, flow_run = run
    assert watched.returncode == 0, watched.stdout + watched.stderr + flow_run["state"]["message"]
    (manifest,) = (checkout / "runs" / "celeba" / "runs").glob("*/manifest.json")
    return manifest


def test_the_run_completes_and_its_dataset_is_sound(run, published):
    _, flow_run = run

    assert flow_run["state_type"] == "COMPLETED"
    assert verify(str(published)) == []
    assert not (ROOT / "runs" / "celeba").exists()


def test_rare_groups_are_filled_as_far_as_the_yield_goes_and_the_rest_is_told(published):
    manifest = Manifest.from_json(published.read_bytes())
    rows = pd.read_parquet(published.with_name("metadata.parquet"))
    kept = rows[rows["kept"] & (rows["source"] == "synthetic")]["group"].value_counts()

    asked = {f"Male={man},After_1960={recent}": max(0, QUOTA - count) for (man, recent), count in COUNTS.items()}
    assert {group: quota["asked"] for group, quota in manifest.quotas.items()} == asked
    assert all(quota["kept"] == kept.get(group, 0) for group, quota in manifest.quotas.items())
    assert all(quota["kept"] + quota["shortfall"] == quota["asked"] for quota in manifest.quotas.values())
    assert kept.sum() > 0, "the backbone's faces pass no filter at all"


def test_synthetic_faces_have_the_label_that_the_ensemble_recognised(published):
    rows = pd.read_parquet(published.with_name("metadata.parquet"))
    kept = rows[rows["kept"] & (rows["source"] == "synthetic")]

    assert (kept["label_agreement"] >= 0.5).all()
    assert (kept["label"] == kept["group"].str.startswith("Male=1").astype(int)).all()
    assert rows[rows["sampler"] == "minority"]["group"].nunique() > 1


def test_the_report_and_the_card_tell_what_is_missing(published):
    manifest = Manifest.from_json(published.read_bytes())
    short = {group for group, quota in manifest.quotas.items() if quota["shortfall"]}
    report = (published.parent / "report" / "report.html").read_text()

    assert all(group in published.with_name("README.md").read_text() for group in short)
    assert "real+minority" in report
    assert "CelebFaces" in report


def test_a_training_job_streams_the_shards(published):
    job = subprocess.run(
        [sys.executable, ROOT / "examples" / "train_on_shards.py", published, "1"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )

    assert job.returncode == 0, job.stderr
    assert "epoch 0: loss" in job.stdout
