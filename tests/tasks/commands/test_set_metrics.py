"""Comparing two folders of images."""

import json

import numpy as np
import pytest
from PIL import Image

from minority.features import ExtractorSettings
from tasks.commands.set_metrics import compare_folders, extractor_settings, metrics_json
from tasks.errors import InputError


@pytest.fixture
def folders(tmp_path):
    rng = np.random.default_rng(0)
    for name, count, side in (("real", 40, 8), ("generated", 30, 8), ("larger", 10, 16)):
        (tmp_path / name).mkdir()
        for i in range(count):
            pixels = rng.integers(0, 256, (side, side), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i:03d}.png")
    return tmp_path


def compare(folders, generated="generated", **settings):
    return compare_folders(
        folders / "real",
        folders / generated,
        features=ExtractorSettings(**settings),
        neighbours=3,
        backbone=None,
        seed=0,
    )


def test_the_figures_come_as_json_with_intervals_and_warnings(folders):
    content = json.loads(metrics_json(compare(folders)))

    assert set(content["figures"]) >= {"avg_knn", "lof", "precision", "recall", "density", "coverage", "fid", "yield"}
    assert set(content["figures"]["fid"]) == {"value", "low", "high"}
    assert content["figures"]["precision"]["value"] > 0
    assert content["figures"]["rarity_score"]["value"] > 0
    assert any("too few" in warning for warning in content["warnings"])


def test_a_rarity_score_of_nothing_inside_is_null(folders):
    for file in (folders / "generated").iterdir():
        Image.fromarray(np.full((8, 8), 255 * (int(file.stem) % 2), dtype=np.uint8)).save(file)

    figures = json.loads(metrics_json(compare(folders)))["figures"]

    assert figures["precision"]["value"] == 0
    assert figures["rarity_score"]["value"] is None


def test_features_with_maps_give_an_sfid(folders, tiny_backbone):
    report = compare_folders(
        folders / "real",
        folders / "generated",
        features=ExtractorSettings(kind="backbone"),
        neighbours=3,
        backbone=tiny_backbone,
        seed=0,
    )

    assert report.figures["sfid"].value > 0
    assert "sfid" not in compare(folders).figures


def test_folders_of_different_sizes_are_refused(folders):
    with pytest.raises(InputError, match="bring both to one size"):
        compare(folders, "larger")
    with pytest.raises(InputError, match="not a folder"):
        compare(folders, "missing")


def test_a_set_smaller_than_its_neighbourhoods_is_refused(folders):
    with pytest.raises(InputError, match="more than k"):
        compare_folders(
            folders / "real",
            folders / "generated",
            features=ExtractorSettings(),
            neighbours=35,
            backbone=None,
            seed=0,
        )


def test_what_the_features_need_is_asked_for(folders):
    with pytest.raises(InputError, match="need a backbone"):
        compare(folders, kind="backbone")


def test_features_are_set_by_dotted_keys():
    assert extractor_settings({}) == ExtractorSettings()
    assert extractor_settings({"kind": "classifier", "classifier.steps": 7}).classifier.steps == 7
    with pytest.raises(InputError, match=r"--features: .*knd"):
        extractor_settings({"knd": "pixels"})


def test_what_is_passed_over_is_among_the_warnings(folders):
    (folders / "real" / "Thumbs.db").write_bytes(b"x")

    assert f"{folders / 'real'}: passed over, file that is no image: 1 (such as Thumbs.db)" in compare(folders).warnings


def test_a_classifier_is_not_trained_on_a_flat_folder(folders):
    with pytest.raises(InputError, match="real has no class folders, which the features of a classifier need"):
        compare(folders, kind="classifier")
