"""Features of the real images are computed once and kept by recipe."""

import numpy as np
import pytest

from datasets.storage.checked import read_checked, write_checked
from datasets.storage.store import Store
from minority.backbones import load_backbone
from minority.features import ExtractorSettings, build_extractor
from tasks.inputs.real_features import real_features
from tasks.inputs.workspace import open_workspace


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), dtype=np.uint8)


@pytest.fixture
def extract(tiny_backbone):
    return build_extractor(ExtractorSettings(kind="backbone"), backbone=load_backbone(tiny_backbone))


def test_the_second_time_they_come_from_the_store(extract, images, tmp_path):
    store = Store(tmp_path)
    first = real_features(extract, images, store=store)
    (path,) = store.list("features")
    write_checked(store, path, read_checked(store, path).replace(first.tobytes(), (first + 1).tobytes()))

    again = real_features(extract, images, store=store)

    np.testing.assert_array_equal(again, first + 1)


def test_damaged_features_and_those_of_earlier_versions_are_made_again(extract, images, tmp_path, caplog):
    store = Store(tmp_path)
    first = real_features(extract, images, store=store)
    (path,) = store.list("features")
    whole = store.read(path)
    damages = [whole[:300] + bytes([whole[300] ^ 8]) + whole[301:], whole[:20], b"", read_checked(store, path)]

    for damaged in damages:
        caplog.clear()
        store.write(path, damaged)
        np.testing.assert_array_equal(real_features(extract, images, store=store), first)
        assert store.read(path) == whole
        assert f"{path} is not what its checksum says, or has none" in caplog.text


def test_other_images_have_features_of_their_own(extract, images, tmp_path):
    store = Store(tmp_path)
    first = real_features(extract, images, store=store)

    other = real_features(extract, images[::-1].copy(), store=store)

    np.testing.assert_allclose(other, first[::-1], rtol=1e-4, atol=1e-6)
    assert len(store.list("features")) == 2


def test_pixels_are_not_stored_twice(images, tmp_path):
    store = Store(tmp_path)

    real_features(build_extractor(ExtractorSettings()), images, store=store)

    assert store.list() == []


def test_a_run_compares_images_where_it_is_told_to(tiny_config):
    workspace = open_workspace(tiny_config(features__kind="backbone"))

    assert workspace.extract.recipe.startswith("backbone-")
    assert workspace.candidate_filter.reference.features.shape[1] == 16
    assert len(workspace.store.list()) == 1


def test_a_run_with_held_out_rules_has_a_discriminator_and_keeps_what_differs(tiny_config):
    discriminator = {"folds": 2, "classifier": {"steps": 2}}
    workspace = open_workspace(
        tiny_config(selection__held_out={"discriminator": discriminator}, selection__diverse=True)
    )

    assert {"p_real", "copy_ratio", "label_probability"} <= set(workspace.candidate_filter.thresholds)
    assert workspace.spacing == 0.0
    assert open_workspace(tiny_config()).spacing is None
