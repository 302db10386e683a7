"""Published shards as a training set: what a backbone is trained on is what was published."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from datasets.readers.imageset import ImageSet
from datasets.runs.manifest import RunFacts
from datasets.runs.publish import publish
from datasets.runs.shards import Sample
from datasets.runs.tables import conform_rows
from datasets.storage.store import Store
from minority.backbones import load_backbone
from minority.diffusion.schedule import NoiseSchedule
from minority.training.checkpoint import run_identity
from minority.training.process_group import SingleProcess
from tasks.backbone.train import train_here
from tasks.config.presets import load_preset
from tasks.config.runs import TrainBackboneConfig
from tasks.config.sections import DatasetConfig
from tasks.errors import InputError
from tasks.inputs.real_data import load_real_data
from tests.real_rows import real_rows, real_samples

GROUPS = {"cat, indoors": 14, "cat, outdoors": 6, "dog, indoors": 12}
SPLIT = {"imbalance": None, "test_fraction": 0.25, "validation_fraction": 0.25}
FACTS = RunFacts(
    dataset="pets",
    run_id="first",
    recipe="0",
    config={},
    backbone={},
    versions={},
    class_names=["cat", "dog"],
    provenance="Drawn by a random number generator; CC0.",
)


def pets(groups, *, seed):
    """Images of random pixels, some of every group."""
    names = [group for group, count in groups.items() for _ in range(count)]
    pixels = np.random.default_rng(seed).integers(0, 256, (len(names), 8, 8, 3), dtype=np.uint8)
    return ImageSet(
        name="pets",
        labels=np.array([FACTS.class_names.index(name.partition(",")[0]) for name in names]),
        groups=names,
        source_ids=[f"pets/{number}" for number in range(len(names))],
        class_names=FACTS.class_names,
        image_shape=(8, 8, 3),
        load=pixels.__getitem__,
    )


REAL, DRAWN = pets(GROUPS, seed=0), pets({"cat, outdoors": 8, "dog, indoors": 2}, seed=1)


@pytest.fixture
def folder(tmp_path):
    """A published run of real images with drawn ones beside them, in several shards."""
    rows = real_rows(REAL)
    drawn = real_rows(DRAWN).to_pandas().assign(source="synthetic", sampler="minority", source_id=None)
    drawn["key"] = [f"s{number}" for number in range(len(DRAWN))]
    samples = [
        Sample(key=key, image=DRAWN.image(number), label=int(DRAWN.labels[number]), record={"source": "synthetic"})
        for number, key in enumerate(drawn["key"])
    ]
    publish(
        Store(tmp_path / "run"),
        facts=FACTS,
        samples=[*real_samples(REAL, rows), *samples],
        metadata=pa.concat_tables(
            [conform_rows(rows, name="real"), conform_rows(pa.Table.from_pandas(drawn), name="drawn")]
        ),
        samples_per_shard=10,
    )
    return tmp_path / "run"


def read(folder, **settings):
    return load_real_data(DatasetConfig(reader="published", folder=f"{folder}/manifest.json", split=SPLIT, **settings))


def shown(part):
    """Key -> pixels, label's name and group of every image."""
    return {
        key: (part.image(number).tobytes(), part.class_names[part.labels[number]], part.groups[number])
        for number, key in enumerate(part.source_ids)
    }


def published(images, prefix):
    names = [FACTS.class_names[label] for label in images.labels]
    return {
        f"{prefix.format(number)}": (images.image(number).tobytes(), names[number], images.groups[number])
        for number in range(len(images))
    }


def test_images_labels_and_groups_are_those_that_were_published(folder):
    real = read(folder)

    parts = [shown(part) for part in (real.train, real.validation, real.test)]
    found = parts[0] | parts[1] | parts[2]
    assert found == published(REAL, "real-{:08d}") | published(DRAWN, "s{}")
    assert len(found) == sum(len(part) for part in parts)  # no image is in two parts
    assert real.groups == ["cat, indoors", "cat, outdoors", "dog, indoors"]
    assert real.group_labels == [0, 0, 1]
    assert real.train.class_names == ["cat", "dog"]


def test_drawn_images_are_trained_on_and_never_held_out(folder):
    real = read(folder)

    assert {f"s{number}" for number in range(len(DRAWN))} <= set(real.train.source_ids)
    assert all(len(part) > 0 for part in (real.validation, real.test))
    assert all(key.startswith("real-") for part in (real.validation, real.test) for key in part.source_ids)


def test_real_images_alone_are_split_as_with_the_drawn_ones_beside_them(folder):
    whole, alone = read(folder), read(folder, source="real")

    assert shown(alone.validation) == shown(whole.validation)
    assert shown(alone.test) == shown(whole.test)
    assert shown(alone.train) == {key: seen for key, seen in shown(whole.train).items() if key.startswith("real-")}


def test_a_backbone_is_trained_on_exactly_the_published_training_part(folder, tmp_path):
    overrides = {
        "dataset": {"reader": "published", "folder": f"{folder}/manifest.json", "split": SPLIT},
        "architecture.block_out_channels": [8, 8],
        "architecture.norm_num_groups": 4,
        "architecture.attention_head_dim": 8,
        "training.steps": 1,
        "training.batch_size": 2,
        "out": str(tmp_path / "pets"),
    }
    config = load_preset(TrainBackboneConfig, "digits", overrides=overrides)

    train_here(config, process_group=SingleProcess(), on_step=lambda step: None, on_evaluation=lambda picture: None)

    train, schedule = read(folder).train, NoiseSchedule.cosine(config.timesteps)
    images, network = train.images(range(len(train))), load_backbone(tmp_path / "pets").denoiser.unet
    trained_on = torch.load(tmp_path / "pets.checkpoint.pt", weights_only=True)["identity"]
    assert trained_on == run_identity(network, images, train.labels, schedule=schedule, settings=config.training)
    assert trained_on != run_identity(network, images, 1 - train.labels, schedule=schedule, settings=config.training)


def remove(path):
    path.unlink()


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change_a_picture(path):
    path.write_bytes(path.read_bytes().replace(b"IDAT", b"IDAX"))


def change_a_row(path):
    path.write_bytes(path.read_bytes().replace(b"cat", b"dog"))


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("manifest.json", remove, r"manifest\.json does not exist; check the path\."),
        (
            "manifest.json",
            cut,
            r"manifest\.json is not readable JSON \(.*\); it is damaged: restore it or make it again",
        ),
        ("metadata.parquet", remove, r"metadata\.parquet does not exist; check the path\."),
        ("metadata.parquet", cut, r"metadata\.parquet is not the table that the manifest names; verify the run\."),
        ("metadata.parquet", change_a_row, r"metadata\.parquet is not the table that the manifest names; verify the"),
        ("shards/pets-000001.tar", remove, r"pets-000001\.tar does not exist; check the path\."),
        ("shards/pets-000001.tar", cut, r"pets-000001\.tar breaks off .*; it is damaged: fetch or make it again\."),
        (
            "shards/pets-000001.tar",
            change_a_picture,
            r"pets-000001\.tar: real-\d+ is not the image whose SHA-256 its row gives; verify the run\.",
        ),
    ],
)
def test_a_publication_that_is_missing_or_damaged_is_one_clear_error(folder, file, damage, message):
    damage(folder / file)

    with pytest.raises((FileNotFoundError, ValueError), match=message) as error:
        shown(read(folder).train)

    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_a_set_without_real_images_and_nothing_at_all_are_refused_with_the_remedy(folder):
    with pytest.raises(InputError, match=r"run is a folder; name the manifest\.json in it\."):
        load_real_data(DatasetConfig(reader="published", folder=str(folder), split=SPLIT))
    with pytest.raises(
        InputError, match=r"has no real image to hold out; leave dataset\.source out, or set it to real"
    ):
        read(folder, source="synthetic")
    with pytest.raises(InputError, match=r"dataset\.folder is not set; name the manifest\.json of a published run"):
        load_real_data(DatasetConfig(reader="published"))


def test_a_manifest_of_another_format_version_is_refused(folder):
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format_version": 2', '"format_version": 99'))

    with pytest.raises(InputError, match=r"format version 99, this program reads 2; use the program's version that"):
        read(folder)
