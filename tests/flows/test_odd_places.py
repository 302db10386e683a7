"""Sets and users that are rare but real, through the command line: one class, black images, another user than root."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
# What no column of numbers may hold where it holds a number at all.
SCORES = ["knn_distance", "nearest_distance", "realism", "lof", "copy_ratio", "minority_score", "negative_elbo"]


@pytest.fixture
def augment_folder(minority, tiny_overrides, as_options, make_backbone, tmp_path):
    """Runs a tiny job on class folders, given as class name -> (N, 8, 8) pixels."""

    def run(classes, **settings):
        for name, images in classes.items():
            (tmp_path / "set" / name).mkdir(parents=True)
            for number, pixels in enumerate(images):
                Image.fromarray(pixels).save(tmp_path / "set" / name / f"{number}.png")
        kept = {key: value for key, value in tiny_overrides.items() if not key.startswith("dataset.")}
        changed = {
            "dataset": {"reader": "folder", "folder": str(tmp_path / "set")},
            "backbone.path": make_backbone(tmp_path / "backbone", num_classes=len(classes)),
            "selection.label_floor": 0,
            "plan.quota": 32,
        }
        overrides = kept | changed | {key.replace("__", "."): value for key, value in settings.items()}
        return minority("augment", "digits", "--store", tmp_path / "store", *as_options(overrides))

    return run


def rows_of(store):
    (table,) = store.rglob("metadata.parquet")
    return pq.read_table(table).to_pandas()


def noise(count):
    return np.random.default_rng(count).integers(0, 256, (count, 8, 8), dtype=np.uint8)


def test_a_set_of_one_class_is_filled_up_and_its_comparison_is_refused_at_the_start(augment_folder, minority, tmp_path):
    refused = augment_folder({"cat": noise(30)})

    assert refused.code == 2
    assert "classifiers need at least 2 classes, the set has 'cat' alone; set downstream.seeds to 0" in refused.stderr
    assert list(tmp_path.rglob("*.tar")) == []

    shutil.rmtree(tmp_path / "set")
    done = augment_folder({"cat": noise(30)}, downstream__seeds=0)

    assert done.code == 0, done.stderr
    rows = rows_of(tmp_path / "store")
    assert set(rows["group"]) == {"class=cat"}
    assert (rows["kept"] & (rows["source"] == "synthetic")).any()


DISCRIMINATOR = {"folds": 2, "classifier": {"steps": 5, "width": 8}}


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param({}, marks=pytest.mark.slow, id="fixed"),
        pytest.param({"selection__held_out": {"discriminator": DISCRIMINATOR}}, id="held out"),
    ],
)
def test_black_and_constant_images_give_numbers_and_no_copies(augment_folder, tmp_path, rules):
    black, grey = np.zeros((30, 8, 8), np.uint8), np.full((30, 8, 8), 128, np.uint8)

    done = augment_folder({"black": black, "grey": grey}, downstream__seeds=0, selection__rare_quantile=0.5, **rules)

    assert done.code == 0, done.stderr
    drawn = rows_of(tmp_path / "store").query("source == 'synthetic'")
    assert len(drawn) > 0
    assert np.isfinite(drawn[SCORES].to_numpy(dtype=float)).all()
    # Noise is a copy of no black image.
    assert drawn["new"].astype(bool).all()


def test_a_class_of_one_image_is_named(augment_folder, tmp_path):
    done = augment_folder({"cat": noise(30), "dog": noise(1)}, downstream__seeds=0)

    assert done.code == 2
    assert "has no image of class dog; add images of it, or change the split settings." in done.stderr
    assert list(tmp_path.rglob("*.tar")) == []


@pytest.fixture
def as_nobody(tmp_path):
    """Runs `minority ...` as a user who owns nothing, but may read all: the interpreter may lie in root's home."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can run a command as another user, by setpriv")
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o777)
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    user += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    places = {"HOME": str(home), "PREFECT_HOME": str(home / "prefect"), "MINORITY_CACHE": str(home / "cache")}
    environment = os.environ | places | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(*args):
        command = [*user, sys.executable, "-c", "from flows.command_line import app; app()", *map(str, args)]
        return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=300)

    return run


def test_another_user_reads_a_store_and_is_told_that_it_cannot_be_written(
    as_nobody, undisturbed, tiny_overrides, as_options, tmp_path
):
    read = as_nobody("verify", undisturbed.folder / "manifest.json")
    assert (read.returncode, read.stderr) == (0, "")
    assert read.stdout.startswith("sound: ")

    store = tmp_path / "store"
    store.mkdir(mode=0o755)
    written = as_nobody("augment", "digits", "--store", store, *as_options(tiny_overrides))

    assert written.returncode == 2
    assert written.stderr.count("\n") == 1
    assert f"{store}/" in written.stderr
    assert "permission denied; give this user write access or choose another store" in written.stderr
    assert list(store.iterdir()) == []
