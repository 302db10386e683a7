"""Real sets of many images: features part by part, mapped from a file, and neighbours looked up in a graph."""

import numpy as np
import pytest

from datasets.storage.checked import read_checked
from minority.neighbours.approximate import ApproximateIndex
from minority.selection.stored_networks import array_bytes, read_arrays
from tasks.config.paths import cache_folder
from tasks.inputs import feature_parts, mapped_arrays, real_features
from tasks.inputs.feature_parts import FeaturePart, make_features
from tasks.inputs.workspace import _open_models, _open_workspace, open_models, open_workspace

DISCRIMINATOR = {"folds": 2, "classifier": {"steps": 2, "width": 4}}
SETTINGS = {
    "features__kind": "backbone",
    "selection__held_out": {"discriminator": DISCRIMINATOR},
    "dataset__split__test_fraction": 0.5,
    "dataset__split__imbalance": None,
}


@pytest.fixture
def in_parts(monkeypatch, tmp_path):
    """Parts of 192 images, three batches, and a cache of this test's own."""
    monkeypatch.setenv("MINORITY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(real_features, "PART_SIZE", 192)
    monkeypatch.setattr(feature_parts, "PART_SIZE", 192)
    yield
    _open_models.cache_clear()
    _open_workspace.cache_clear()


def test_parts_are_the_features_and_a_damaged_one_is_made_again(tiny_config, in_parts, tmp_path, caplog):
    config = tiny_config(**SETTINGS)
    models = open_models(config)
    parts = feature_parts.feature_parts(models)
    count = len(models.train_images)
    assert count > 600
    assert parts[1] == FeaturePart(number=1, num_images=192)
    assert sum(part.num_images for part in parts) == 2 * count
    for part in parts:
        make_features.fn(part, config)
    store = models.run.dataset_store
    (damaged,) = (path for path in store.list("features") if path.endswith("/00002.npy") and "mirrored" not in path)
    whole = store.read(damaged)
    store.write(damaged, whole[:-80])

    features, mirrored = models.features, models.mirrored_features

    np.testing.assert_array_equal(features, models.extract(models.train_images[:]))
    np.testing.assert_array_equal(mirrored, models.extract(np.ascontiguousarray(models.train_images[:][:, :, ::-1])))
    assert isinstance(features, np.memmap)
    assert store.read(damaged) == whole
    assert "00002.npy is not what its checksum says, or has none" in caplog.text
    assert len(list((tmp_path / "cache" / "features").iterdir())) == 2


def test_a_filter_that_looks_neighbours_up_in_a_graph_decides_as_the_exact_one(tiny_config, in_parts):
    exact = open_workspace(tiny_config(**SETTINGS, selection__search="exact")).candidate_filter

    workspace = open_workspace(tiny_config(**SETTINGS, selection__search="faiss"))
    found = workspace.candidate_filter

    assert isinstance(found.reference.index, ApproximateIndex)
    assert found.reference.index.accuracy.recall >= 0.99
    assert found.thresholds == pytest.approx(exact.thresholds, rel=1e-3)
    images = workspace.train_images[np.arange(40)] // 2 + 60
    features, labels = workspace.extract(images), workspace.real.train.labels[:40]
    one, other = (candidate_filter.evaluate(features, labels, images=images) for candidate_filter in (exact, found))
    for name in ("rare", "valid", "new", "label_kept"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_allclose(one.label_agreement, other.label_agreement, rtol=1e-3)
    np.testing.assert_allclose(one.neighbourhood.knn_distance, other.neighbourhood.knn_distance, rtol=1e-3)


def test_the_neighbours_of_a_large_set_are_fitted_once(tiny_config, in_parts, monkeypatch):
    config = tiny_config(**SETTINGS, selection__search="faiss")
    first = open_workspace(config)
    store = first.run.dataset_store
    names = {path.partition("/")[2].partition("-")[0] for path in store.list("fitted")}
    assert names >= {"reference", "mirrored", "discriminator"}
    before = {path: read_checked(store, path) for path in store.list("fitted")}
    _open_models.cache_clear()
    _open_workspace.cache_clear()
    monkeypatch.setattr("tasks.inputs.fitted.connect", None)  # nothing is linked a second time

    again = open_workspace(config)

    assert again.candidate_filter.thresholds == first.candidate_filter.thresholds
    assert {path: read_checked(store, path) for path in store.list("fitted")} == before


def test_what_was_fitted_is_mapped_from_the_cache_by_all_processes_of_a_machine(tiny_config, in_parts, monkeypatch):
    config = tiny_config(**SETTINGS, selection__search="faiss")
    held = open_workspace(config).candidate_filter
    _open_models.cache_clear()
    _open_workspace.cache_clear()
    monkeypatch.setattr(mapped_arrays, "HELD_BYTES", 0)
    first = open_workspace(config)
    cached = sorted((cache_folder() / "fitted").iterdir())
    assert [folder.name.partition("-")[0] for folder in cached] == ["mirrored", "reference"]
    _open_models.cache_clear()
    _open_workspace.cache_clear()
    monkeypatch.setattr(mapped_arrays, "_save", None)  # nothing is written a second time

    again = open_workspace(config).candidate_filter

    assert isinstance(again.reference.radii, np.memmap)
    assert again.thresholds == held.thresholds
    images, labels = first.train_images[np.arange(40)] // 2 + 60, first.real.train.labels[:40]
    one, other = (own.evaluate(first.extract(images), labels, images=images) for own in (held, again))
    np.testing.assert_array_equal(one.neighbourhood.realism, other.neighbourhood.realism)
    np.testing.assert_array_equal(one.passed, other.passed)
    assert sorted((cache_folder() / "fitted").iterdir()) == cached


def test_a_full_cache_does_not_keep_what_was_fitted_from_an_empty_store(tiny_config, in_parts, monkeypatch, tmp_path):
    monkeypatch.setattr(mapped_arrays, "HELD_BYTES", 0)
    open_workspace(tiny_config(**SETTINGS, selection__search="faiss"))

    other = open_workspace(tiny_config(**SETTINGS, selection__search="faiss", store=str(tmp_path / "other")))

    names = {path.partition("/")[2].partition("-")[0] for path in other.run.dataset_store.list("fitted")}
    assert names >= {"reference", "mirrored"}


def test_a_cached_array_that_was_cut_short_is_written_again(in_parts, monkeypatch, caplog):
    monkeypatch.setattr(mapped_arrays, "HELD_BYTES", 0)
    made = {"one": np.arange(10, dtype=np.int64), "other": np.ones(3, dtype=np.float32)}
    mapped_arrays.mapped_arrays("made", array_bytes(made))
    (cut,) = (cache_folder() / "fitted" / "made").glob("one.npy")
    cut.write_bytes(cut.read_bytes()[:-8])

    found = mapped_arrays.mapped_arrays("made", array_bytes(made))

    np.testing.assert_array_equal(found["one"], made["one"])
    assert "is damaged and written again" in caplog.text


def test_of_two_processes_that_cache_at_once_the_first_wins(in_parts, monkeypatch):
    monkeypatch.setattr(mapped_arrays, "HELD_BYTES", 0)
    made = {"one": np.arange(10, dtype=np.int64)}

    def slowly(data):
        mapped_arrays._save(cache_folder() / "fitted" / "twice", made)
        return read_arrays(data)

    monkeypatch.setattr(mapped_arrays, "read_arrays", slowly)
    found = mapped_arrays.mapped_arrays("twice", array_bytes(made))

    np.testing.assert_array_equal(found["one"], made["one"])
    assert [path.name for path in (cache_folder() / "fitted").iterdir()] == ["twice"]


def test_a_cache_that_cannot_be_written_is_told(in_parts, monkeypatch, tmp_path):
    monkeypatch.setattr(mapped_arrays, "HELD_BYTES", 0)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "fitted").write_text("a file where the folder should be")

    with pytest.raises(OSError, match="fitted"):
        mapped_arrays.mapped_arrays("made", array_bytes({"one": np.arange(3)}))


def test_too_many_pixels_are_no_features(tiny_config, monkeypatch):
    monkeypatch.setattr(real_features, "MOST_PIXELS", 1000)

    with pytest.raises(
        ValueError, match=r"^features: the pixels of 91 images would take 0\.0 GiB as features; choose "
    ):
        open_models(tiny_config(dataset__split__seed=5))
