"""Guidance that learns from the real images, through the command line: learnt once, drawn with, calibrated."""

import json

import pandas as pd
import pytest

pytestmark = pytest.mark.system

SHORT = {"training": {"width": 8, "steps": 2, "batch_size": 8}}
SAMPLER = {
    "steps": 4,
    "low_density": {"plain_samples": 4, **SHORT},
    "minority_guidance": {"levels": 3, "draws": 1, **SHORT},
}


def learnt(store):
    return {
        path.relative_to(store).as_posix(): path.stat().st_mtime_ns
        for path in (store / "digits" / "guidance").rglob("*.safetensors")
    }


def test_a_run_learns_once_and_another_run_of_the_same_images_finds_it(augment_tiny, minority, tmp_path):
    settings = {"sampler": SAMPLER, "plan.max_rounds": 1, "plan.baseline": False, "downstream.seeds": 0}

    first = augment_tiny(tmp_path / "store", settings)
    assert first.code == 0, first.stderr
    parts = learnt(tmp_path / "store")
    second = augment_tiny(tmp_path / "store", settings | {"seed": 1})

    assert second.code == 0, second.stderr
    assert len(parts) == 6
    assert learnt(tmp_path / "store") == parts
    manifests = sorted((tmp_path / "store").rglob("manifest.json"))
    assert len(manifests) == 2
    for manifest in manifests:
        assert minority("verify", manifest).code == 0
        sampler = json.loads(manifest.read_text())["config"]["sampler"]
        assert sampler["low_density"]["plain_samples"] == 4
        assert "jepa_guidance" not in sampler
        rows = pd.read_parquet(manifest.with_name("metadata.parquet"))
        assert rows.loc[rows["source"] == "synthetic", "evaluations"].unique().tolist() == [4.0]


def test_a_calibration_searches_what_is_learnt_and_keeps_what_is_not_searched(
    minority, tiny_backbone, as_options, tmp_path
):
    settings = {
        "backbone.path": tiny_backbone,
        "dataset.split": {"test_fraction": 0.8, "validation_fraction": 0.05, "imbalance": 5, "seed": 0},
        "selection": {"rare_quantile": 0, "realism_floor": 0, "label_floor": 0.0},
        "sampler": SAMPLER | {"shaped_noise": {"truncate": 2.0}},
        "calibration": {
            "budget": 4000,
            "candidates": 6,
            "finalists": 2,
            "validity_floor": 0.0,
            "space": {
                "solvers": [{"steps": 4}],
                "self_guidance": [],
                "boost_and_skip": [],
                "prune_and_branch": [],
                "minority_guidance": [{"scale": [1.0, 3.0]}],
            },
        },
    }

    done = minority("calibrate", "digits", "--store", tmp_path / "store", *as_options(settings))

    assert done.code == 0, done.stderr
    (result,) = (tmp_path / "store").rglob("result.json")
    samplers = {entry["name"]: entry["sampler"] for entry in json.loads(result.read_text())["candidates"]}
    searched = [sampler for name, sampler in samplers.items() if name.startswith("ancestral 4, ")]
    found = {sampler.get("minority_guidance", {}).get("scale") for sampler in searched}
    assert found == {None, 3.0}  # 1 is the preset's own, and compared with
    assert samplers["present settings"]["minority_guidance"]["scale"] == 1.0
    assert all(sampler["shaped_noise"]["truncate"] == 2.0 and sampler["low_density"] for sampler in searched)
    assert len(learnt(tmp_path / "store")) == 6
