"""The real images of a run, for every reader that a config can name."""

import io
import os
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydantic import ValidationError

from datasets.readers.images.screening import screen
from tasks.config.paths import data_path
from tasks.config.presets import load_preset
from tasks.config.runs import AugmentConfig
from tasks.config.sections import DatasetConfig
from tasks.errors import InputError
from tasks.inputs import real_data
from tasks.inputs.real_data import load_real_data

PLACE = os.environ.get("MINORITY_DATA", "")


@pytest.fixture
def table_folder(tmp_path):
    """Forty pictures of two classes with a table and its settings as YAML."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "data" / "spots"
    (folder / "pictures").mkdir(parents=True)
    rows = []
    for number in range(40):
        Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(folder / "pictures" / f"{number}.png")
        rows.append({"file": f"{number}.png", "kind": "round" if number % 4 else "long", "sex": "fm"[number % 2]})
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    settings = tmp_path / "spots.yaml"
    settings.write_text(
        "name: spots\nimages: pictures\ntable: table.csv\nimage_column: file\nlabel_column: kind\n"
        "classes: [round, long]\ngroups: [sex]\n"
    )
    return folder, settings


def test_a_table_is_kept_whole_in_the_config_and_read_with_its_groups(table_folder):
    folder, settings = table_folder
    config = DatasetConfig(
        reader="image_table",
        folder=str(folder),
        table=str(settings),
        image_size=8,
        split={"imbalance": None, "test_fraction": 0.5, "validation_fraction": 0.2},
    )

    real = load_real_data(config)

    assert DatasetConfig.model_validate_json(config.model_dump_json()) == config
    assert config.table.label_column == "kind"
    assert real.train.image_shape == (8, 8, 3)
    assert len(real.train) + len(real.validation) + len(real.test) == 40
    assert set(real.groups) == set(real.train.groups)
    assert not real.has_one_group_a_label


def test_what_a_table_needs_is_named(table_folder):
    folder, _ = table_folder
    with pytest.raises(InputError, match=r"dataset\.table is not set"):
        load_real_data(DatasetConfig(reader="image_table", folder=str(folder)))
    with pytest.raises(InputError, match=r"dataset\.folder is not set; name the folder that holds the four idx"):
        load_real_data(DatasetConfig(reader="fashion_mnist"))
    with pytest.raises(ValidationError, match="unknown key 'lable_column'; did you mean label_column"):
        DatasetConfig(reader="image_table", table={"name": "spots", "lable_column": "kind"})


def test_data_may_lie_below_the_folder_that_a_variable_names(table_folder, monkeypatch):
    folder, _ = table_folder
    monkeypatch.setenv("MINORITY_DATA", str(folder.parent))

    assert data_path("data/spots") == folder
    assert data_path("elsewhere/spots") != folder


@pytest.fixture
def unequal(tmp_path):
    """Two classes below train/ and test/, of unequal sizes."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 3)):
        for name in ("a", "b"):
            (tmp_path / "set" / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (9 + number, 30 - number, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "set" / part / name / f"{number}.png")
    return tmp_path / "set"


def test_a_folder_of_parts_is_split_as_its_makers_did_and_resized(unequal):
    real = load_real_data(DatasetConfig(reader="folder", folder=str(unequal), image_size=8, split={"imbalance": None}))

    assert real.train.image_shape == (8, 8, 3)
    assert len(real.test) == 6
    assert {name.split("/")[0] for name in real.test.source_ids} == {"test"}
    assert {name.split("/")[0] for name in (*real.train.source_ids, *real.validation.source_ids)} == {"train"}


def test_parts_without_a_training_part_are_refused(unequal):
    shutil.rmtree(unequal / "train")

    with pytest.raises(InputError, match=r"has no images in train/ to learn from"):
        load_real_data(DatasetConfig(reader="folder", folder=str(unequal), image_size=8))


def test_classes_of_a_folder_may_be_chosen_and_ordered(unequal):
    split = {"imbalance": None}

    real = load_real_data(
        DatasetConfig(reader="folder", folder=str(unequal), image_size=8, classes=["b", "a"], split=split)
    )

    assert real.train.class_names == ["b", "a"]
    assert real.groups == ["class=b", "class=a"]


@pytest.mark.parametrize(
    ("reader", "setting", "users"),
    [
        ("digits", {"folder": "data"}, "celeba"),
        ("digits", {"image_size": 32}, "celeba"),
        ("cifar10", {"image_size": 32}, "folder"),
        ("folder", {"categories": ("kitchen",)}, "lsun"),
        ("folder", {"max_images": 5}, "lsun, imagenet"),
        ("image_table", {"classes": ("a",)}, "folder"),
        ("fashion_mnist", {"target": "Smiling"}, "celeba"),
        ("imagenet", {"source": "real"}, "published"),
        ("celeba", {"split": {"seed": 4}}, "digits"),
    ],
)
def test_a_setting_that_the_reader_does_not_use_is_an_error(reader, setting, users):
    (name,) = setting

    with pytest.raises(ValidationError, match=f"{name} is not used by the reader {reader}, only by .*{users}"):
        DatasetConfig(reader=reader, **setting)


def test_a_setting_that_says_nothing_new_is_none_too_many():
    config = DatasetConfig(reader="digits", image_size=None, target="Blond_Hair", classes=())

    assert DatasetConfig.model_validate_json(config.model_dump_json()) == config
    assert "classes" not in config.model_dump(mode="json")  # a recipe stays what it was


def test_lsun_tests_on_its_validation_part_and_validates_on_some_of_its_training_part(tmp_path):
    for part, count in (("train", 20), ("val", 3)):
        place = tmp_path / f"bedroom_{part}"
        place.mkdir()
        for number in range(count):
            pixels = np.full((10, 10, 3), number, dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{part}{number:03d}.webp", lossless=True)
    split = {"imbalance": None, "validation_fraction": 0.3, "validation_cap": 2}

    real = load_real_data(DatasetConfig(reader="lsun", folder=str(tmp_path), image_size=8, max_images=18, split=split))

    assert len(real.test) == 3
    assert len(real.validation) == 2
    assert 0 < len(real.train) < 18
    assert not set(real.train.source_ids) & set(real.validation.source_ids)


@pytest.mark.realdata
@pytest.mark.skipif(not PLACE, reason="MINORITY_DATA names no folder with the real image sets")
@pytest.mark.parametrize(
    ("reader", "folder", "settings", "classes", "tests"),
    [
        ("fashion_mnist", "data/fashion_mnist", {"image_size": 32}, 10, 10_000),
        ("cifar10", "data/cifar10", {}, 10, 10_000),
        ("image_table", "data/ham10000", {"table": "examples/sets/ham10000.yaml"}, 7, 1512),
    ],
)
def test_a_long_tail_is_cut_from_training_alone_and_validation_is_capped(reader, folder, settings, classes, tests):
    split = {"imbalance": 20.0, "validation_cap": 50}

    real = load_real_data(DatasetConfig(reader=reader, folder=folder, split=split, **settings))

    counts = Counter(real.train.labels.tolist())
    assert len(counts) == classes
    assert counts[0] / counts[classes - 1] == pytest.approx(20, rel=0.02)
    assert max(Counter(real.validation.labels.tolist()).values()) <= 50
    assert len(real.test) == tests
    parts = [set(part.source_ids) for part in (real.train, real.validation, real.test)]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]


SPLIT = {"imbalance": None, "test_fraction": 0.3, "validation_fraction": 0.3}


@pytest.fixture
def made_set(tmp_path):
    """Sixty pictures of two classes as a table, a folder or a tar; `damage` breaks some of them."""
    rng = np.random.default_rng(0)
    pictures = {}
    for number in range(60):
        sink = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(sink, "PNG")
        pictures[f"{number:02d}"] = sink.getvalue()
    label = {key: int(key) % 3 == 0 for key in pictures}

    def make(form, damaged=()):
        folder = tmp_path / form
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        # The header stays whole, the pixels break off.
        encoded = {key: data[: len(data) // 2] if key in damaged else data for key, data in pictures.items()}
        if form == "tars":
            with tarfile.open(folder / "a.tar", "w") as tar:
                for key, data in encoded.items():
                    for name, content in ((f"{key}.png", data), (f"{key}.cls", b"%d" % label[key])):
                        entry = tarfile.TarInfo(name)
                        entry.size = len(content)
                        tar.addfile(entry, io.BytesIO(content))
            return DatasetConfig(
                reader="image_tars", folder=str(folder), tars={"classes": ["a", "b"]}, image_size=16, split=SPLIT
            )
        for key, data in encoded.items():
            place = folder / ("images" if form == "table" else "ab"[label[key]])
            place.mkdir(exist_ok=True)
            (place / f"{key}.png").write_bytes(data)
        if form == "folder":
            return DatasetConfig(reader="folder", folder=str(folder), split=SPLIT)
        frame = pd.DataFrame({"file": [f"{key}.png" for key in label], "kind": ["ab"[bit] for bit in label.values()]})
        frame.to_csv(folder / "t.csv", index=False)
        table = {"name": "own", "table": "t.csv", "images": "images", "image_column": "file", "label_column": "kind"}
        return DatasetConfig(reader="image_table", folder=str(folder), table=table, split=SPLIT)

    return make


def key_of(source_id):
    return source_id.rpartition("/")[2].removesuffix(".png")


def test_a_damaged_image_is_a_row_with_a_reason_in_every_part_of_every_kind_of_set(made_set):
    for form in ("table", "folder", "tars"):
        whole = load_real_data(made_set(form))
        parts = {name: [key_of(i) for i in getattr(whole, name).source_ids] for name in ("train", "validation", "test")}
        damaged = {name: keys[1] for name, keys in parts.items()}

        config = made_set(form, damaged.values())
        real_data._load.cache_clear()
        real = load_real_data(config)

        for name, keys in parts.items():
            left = getattr(real, name)
            assert [key_of(source_id) for source_id in left.source_ids] == [k for k in keys if k != damaged[name]], form
            assert left.images(range(len(left))).shape == (len(keys) - 1, 16, 16, 3)
        assert {key_of(problem.source_id) for problem in real.problems} == set(damaged.values())
        (entry,) = real.account.left_out
        assert (entry.reason, entry.images) == ("image that cannot be read", 3)
        assert all(f"{key}" in real.account.to_text() for key in damaged.values())
        assert real.account.num_images == 60


def test_images_are_read_once_and_again_when_a_file_changes(made_set, monkeypatch, tmp_path):
    monkeypatch.setenv("MINORITY_CACHE", str(tmp_path / "cache"))
    reads = []
    monkeypatch.setattr("tasks.inputs.screened.screen", lambda parts: reads.append(1) or screen(parts))
    config = made_set("table", ["07"])

    def account():
        real_data._load.cache_clear()
        return load_real_data(config).account

    first = account()
    assert account() == first
    assert len(reads) == 1
    (kept,) = (tmp_path / "cache").rglob("*.npz")
    kept.write_bytes(b"{")
    assert account() == first
    assert len(reads) == 2
    sound = Path(config.folder, "images", "06.png").read_bytes()
    Path(config.folder, "images", "07.png").write_bytes(sound)
    mended = account()
    assert len(reads) == 3
    assert mended.left_out == []
    assert mended.notes == ["1 sets of images are equal pixel by pixel, " + mended.notes[0].split(", ", 1)[1]]


def test_a_cache_that_cannot_be_written_is_no_error(made_set, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MINORITY_CACHE", str(tmp_path / "file"))

    assert load_real_data(made_set("folder")).account.num_images == 60


def test_a_class_whose_images_are_all_damaged_is_named_with_the_reason(made_set):
    config = made_set("folder", [f"{number:02d}" for number in range(0, 60, 3)])

    with pytest.raises(InputError, match=r"no image of class b \(20 images cannot be read, first b/"):
        load_real_data(config)


def test_what_tars_need_is_named(tmp_path):
    with pytest.raises(InputError, match=r"dataset\.tars is not set; name the classes"):
        load_real_data(DatasetConfig(reader="image_tars", folder=str(tmp_path)))
    with pytest.raises(InputError, match=r"dataset\.image_size is not set"):
        load_real_data(DatasetConfig(reader="image_tars", folder=str(tmp_path), tars={"classes": ["a"]}))


def test_the_demo_accounts_for_every_digit():
    account = load_real_data(load_preset(AugmentConfig, "digits").dataset).account

    assert account.num_images == 1797
    assert [entry.reason for entry in account.left_out] == ["thinned by the long tail (split.imbalance)"]


def test_the_groups_of_all_images_are_gone_through_once_however_often_they_are_asked_for():
    """Every sample of a unit asks for the label of its group; a set may have a million images."""
    real = load_real_data(load_preset(AugmentConfig, "digits").dataset)

    assert real.group_labels is real.group_labels
    assert real.train_groups is real.train_groups
    assert [real.group_labels[group] for group in real.train_groups[:50]] == real.train.labels[:50].tolist()
