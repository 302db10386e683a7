"""augment/imagenet on a thousand synset folders: every image counts, and every class is filled up."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.tiny_networks import save_tiny_backbone

pytestmark = pytest.mark.system

CLASSES, SIDE = 1000, 16


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """Four to six training images and one of test a synset, of sizes that differ."""
    folder, rng = tmp_path_factory.mktemp("imagenet"), np.random.default_rng(0)
    for label in range(CLASSES):
        for part, count in (("train", 4 + label % 3), ("val", 1)):
            synset = folder / part / f"n{label:08d}"
            synset.mkdir(parents=True)
            for i in range(count):
                coarse = Image.fromarray(rng.integers(256, size=(4, 4, 3)).astype(np.uint8))
                size = tuple(rng.integers(20, 40, size=2).tolist())
                coarse.resize(size, Image.Resampling.BICUBIC).save(synset / f"{synset.name}_{i}.JPEG")
    return folder


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return save_tiny_backbone(tmp_path_factory.mktemp("backbone") / "unet", side=SIDE, channels=3, num_classes=CLASSES)


@pytest.mark.slow
def test_a_thousand_folders_are_all_read_and_all_filled_up(imagenet, backbone, minority, as_options, tmp_path):
    settings = {
        "dataset.folder": str(imagenet),
        "dataset.image_size": SIDE,
        "backbone.path": backbone,
        "backbone.flags": {},
        "sampler.steps": 2,
        "sampler.self_guidance.interval": 1,
        "sampler.precision": "fp32",
        # An untrained network draws nothing real: everything passes but near-copies.
        "selection.realism_floor": 0,
        "selection.policy": "all",
        "plan.quota": 6,
        "plan.expected_yield": 0.5,
        "plan.candidates_per_image": 4,
        "plan.baseline": False,
    }

    ended = minority("augment", "imagenet", "--store", tmp_path, *as_options(settings), "--json", "--quiet")

    assert ended.code == 0, ended.stderr
    printed = json.loads(ended.stdout)
    rows = pq.read_table(next(tmp_path.rglob("metadata.parquet"))).to_pandas()
    real = rows[rows["source"] == "real"]
    assert real["label"].nunique() == CLASSES
    assert printed["wanted"] == 6 * CLASSES - len(real)
    drawn = rows[(rows["source"] == "synthetic") & (rows["sampler"] == "minority")]
    counts = real["label"].value_counts()
    assert set(drawn["label"]) == set(counts.index[counts < 6])
    assert printed["kept"] == int(drawn["kept"].sum())
