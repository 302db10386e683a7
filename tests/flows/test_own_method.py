"""A guidance method that a test-only file brings along goes through the whole product, and no other line changes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
FILE = Path(__file__).with_name("own_method.py")


@pytest.fixture(scope="module")
def minority_with_own(make_launcher, server_url, tmp_path_factory):
    """The command line where a package with the method is installed."""
    site = tmp_path_factory.mktemp("site")
    shutil.copy(FILE, site)
    package = site / "own_method-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: own-method\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[minority.guidance]\nown = own_method\n")
    home = tmp_path_factory.mktemp("command-line-with-own")
    launcher = make_launcher(home, server_url, more={"PYTHONPATH": f"{ROOT}:{site}"})
    yield launcher
    launcher.close()


def mean_brightness(folder):
    return np.mean([np.asarray(Image.open(path)) for path in sorted(folder.glob("0*.png"))])


def test_it_is_listed_and_samples(minority_with_own, tiny_backbone, tmp_path):
    listed = minority_with_own("sample", "--list")
    assert "brightened\n    makes every image brighter\n    nobody's, 2026\n" in listed.stdout

    for name, amount in (("dark", 0), ("bright", 2)):
        command = ("sample", "--backbone", tiny_backbone, "--num", 2, "--out", tmp_path / name, "--guidance", "steps=4")
        done = minority_with_own(*command, "--guidance", f"brightened.amount={amount}")
        assert done.code == 0, done.stderr
    assert mean_brightness(tmp_path / "bright") > mean_brightness(tmp_path / "dark") + 50

    refused = minority_with_own(*command, "--guidance", "brightened.every=0")
    assert refused.code == 2
    assert refused.stderr == ("error: sampler.brightened: Brightened.every must be at least 1 step, got 0.\n")


def test_it_augments(minority_with_own, tiny_overrides, as_options, tmp_path):
    settings = tiny_overrides | {"sampler.self_guidance": None, "sampler.brightened": {"amount": 0.25}}
    settings = {key: value for key, value in settings.items() if not key.startswith("sampler.self_guidance.")}
    settings |= {"plan.max_rounds": 1, "plan.baseline": False, "downstream.seeds": 0}

    done = minority_with_own("augment", "digits", "--store", tmp_path / "store", *as_options(settings))

    assert done.code == 0, done.stderr
    (manifest,) = (tmp_path / "store").rglob("manifest.json")
    assert json.loads(manifest.read_text())["config"]["sampler"]["brightened"] == {"amount": 0.25, "every": 1}
    rows = pd.read_parquet(manifest.with_name("metadata.parquet"))
    guidance = json.loads(rows.loc[rows["sampler"] == "minority", "guidance"].iloc[0])
    assert guidance["brightened"] == {"amount": 0.25, "every": 1}


def test_a_calibration_searches_it(minority_with_own, tiny_backbone, as_options, tmp_path):
    settings = {
        "backbone.path": tiny_backbone,
        "dataset.split": {"test_fraction": 0.8, "validation_fraction": 0.05, "imbalance": 5, "seed": 0},
        "selection": {"rare_quantile": 0, "realism_floor": 0, "label_floor": 0.0},
        "sampler": {"steps": 4},
        "calibration": {
            "budget": 4000,
            "candidates": 7,
            "finalists": 2,
            "validity_floor": 0.0,
            "space": {"solvers": [{"steps": 4}], "self_guidance": [], "boost_and_skip": [], "prune_and_branch": []},
        },
    }

    done = minority_with_own("calibrate", "digits", "--store", tmp_path / "store", *as_options(settings))

    assert done.code == 0, done.stderr
    (result,) = (tmp_path / "store").rglob("result.json")
    names = {entry["name"] for entry in json.loads(result.read_text())["candidates"]}
    assert {name for name in names if "brightened" in name} == {
        "ancestral 4, brightened amount 0.5",
        "ancestral 4, brightened amount 0.5 every 2",
        "ancestral 4, brightened",
        "ancestral 4, brightened every 2",
    }


def test_where_it_is_not_installed_it_is_no_setting(minority, tiny_backbone, tmp_path):
    command = ("sample", "--backbone", tiny_backbone, "--num", 2, "--out", tmp_path / "out")
    refused = minority(*command, "--guidance", "brightened.amount=1")

    assert refused.code == 2
    assert "sampler.brightened is not a setting" in refused.stderr
