"""A search for hidden groups on pictures with a table: its files, its going on, and what takes its column."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from datasets.storage.store import Store
from tasks.config.presets import load_discovery
from tasks.config.runs import DiscoverConfig
from tasks.discovery.result import write_result
from tasks.discovery.search import fit_biased_model, open_search, plan_fits, plan_samples
from tasks.downstream.data import real_images
from tasks.errors import InputError
from tasks.inputs.real_data import load_real_data

PER_CLASS, CONFLICTS = 60, 4


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two classes of 8x8 pictures; a corner gives the class away in all but a few, and the table knows of it."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "images").mkdir()
    rng, rows = np.random.default_rng(0), []
    for i in range(2 * PER_CLASS):
        upright, conflicting = i % 2 == 1, i // 2 < CONFLICTS
        pixels = rng.normal(90, 20, size=(8, 8))
        pixels[:, 6] += 40 * upright
        bright = upright != conflicting
        pixels[:3, :3] = 250 if bright else 10
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"{i:03d}.png")
        rows.append((f"{i:03d}.png", "upright" if upright else "level", "bright" if bright else "dark"))
    pd.DataFrame(rows, columns=["file", "kind", "corner"]).to_csv(folder / "table.csv", index=False)
    return folder


def config_for(pictures, store, **dataset):
    return DiscoverConfig.model_validate(
        {
            "name": "bars",
            "dataset": {
                "reader": "image_table",
                "folder": str(pictures),
                "table": {
                    "name": "bars",
                    "table": "table.csv",
                    "images": "images",
                    "image_column": "file",
                    "label_column": "kind",
                    "groups": ["corner"],
                },
                "split": {"test_fraction": 0.2, "validation_fraction": 0.1},
            }
            | dataset,
            "discovery": {
                "models": 1,
                "budget": {
                    "network": {"width": 6},
                    "steps": 60,
                    "learning_rates": [0.003],
                    "weight_decays": [0.03],
                    "trials": 1,
                    "jitter": {"shift": 0, "rotation": 0},
                },
            },
            "store": str(store),
            "device": "cpu",
        }
    )


@pytest.fixture(scope="module")
def searched(pictures, tmp_path_factory):
    config = config_for(pictures, tmp_path_factory.mktemp("store"))
    assert plan_samples(config) == []
    for fit in plan_fits(config):
        fit_biased_model.fn(fit, config)
    return config, write_result(config)


def test_the_table_has_every_image_of_every_part_once(searched):
    config, summary = searched
    real = load_real_data(config.dataset)

    table = pd.read_parquet(summary.table)

    parts = {"train": real.train, "validation": real.validation, "test": real.test}
    for part, images in parts.items():
        rows = table[table["part"] == part]
        assert list(rows["source_id"]) == list(images.source_ids)
        assert list(rows["label"]) == [images.class_names[label] for label in images.labels]
    assert len(table) == 2 * PER_CLASS
    assert (table.groupby(["part", "label"])["weight"].mean() - 1).abs().max() < 1e-9


def test_agreement_with_the_known_attribute_is_told(searched):
    config, summary = searched
    train = load_real_data(config.dataset).train
    usual = np.where(train.labels == train.class_names.index("upright"), "bright", "dark")
    conflicting = np.array(train.attributes["corner"]) != usual
    table = pd.read_parquet(summary.table)
    flagged = (table[table["part"] == "train"]["conflicting"] == "yes").to_numpy()

    (row,) = summary.agreement

    assert row["attribute"] == "corner"
    assert row["precision"] == f"{(flagged & conflicting).sum() / flagged.sum():.1%}"
    assert row["recall"] == f"{(flagged & conflicting).sum() / conflicting.sum():.1%}"
    assert (flagged & conflicting).sum() / conflicting.sum() > 0.5
    assert any("nothing here says that synthetic images help" in note for note in summary.notes)


def test_every_class_has_a_contact_sheet(searched):
    _, summary = searched
    sheets = Store(summary.sheets)

    names = sorted(sheets.list())

    assert names == ["class-00.png", "class-01.png"]
    for name in names:
        with Image.open(io.BytesIO(sheets.read(name))) as sheet:
            assert sheet.size[0] > 8 * 12


def test_a_search_goes_on_where_it_was_and_makes_damaged_answers_again(searched):
    config, summary = searched
    store, (first, second) = open_search(config).store, plan_fits(config)
    paths = [f"answers/{fit.key}.npz" for fit in (first, second)]
    before, kept = (store.read(path) for path in paths)
    table = pd.read_parquet(summary.table)

    store.write(paths[0], before[:-3] + b"xxx")
    store.write(paths[1], kept)  # sound: it is taken as it is
    for fit in (first, second):
        fit_biased_model.fn(fit, config)

    assert store.read(paths[0]) == before
    pd.testing.assert_frame_equal(pd.read_parquet(write_result(config).table), table)


def test_known_attributes_do_not_change_what_is_found(searched, pictures, tmp_path):
    _, summary = searched
    blind = tmp_path / "blind"
    blind.mkdir()
    (blind / "images").symlink_to(pictures / "images")
    pd.read_csv(pictures / "table.csv", dtype=str).drop(columns="corner").to_csv(blind / "table.csv", index=False)
    content = config_for(blind, tmp_path / "store").model_dump(mode="json")
    content["dataset"]["table"]["groups"] = []

    without = DiscoverConfig.model_validate(content)
    for fit in plan_fits(without):
        fit_biased_model.fn(fit, without)
    found = write_result(without)

    assert found.agreement == []
    pd.testing.assert_frame_equal(pd.read_parquet(found.table), pd.read_parquet(summary.table))


def test_the_column_makes_groups_for_quotas_and_recipes(searched, pictures):
    config, summary = searched
    plain = load_real_data(config.dataset)

    real = load_real_data(config_for(pictures, config.store, discovered=summary.table).dataset)

    assert real.groups == [f"kind={kind},conflicting={word}" for kind in ("level", "upright") for word in ("no", "yes")]
    assert sorted(real.train.source_ids) == sorted(plain.train.source_ids)
    data = real_images(real)
    assert data.train.attributes is not None
    assert set(data.train.attributes.tolist()) == {0, 1}
    assert data.train.groups.max() == 3


def test_what_cannot_be_searched_is_refused(pictures, tmp_path):
    with pytest.raises(ValueError, match="amplifier draws plain samples; name a backbone"):
        DiscoverConfig.model_validate(
            {
                **config_for(pictures, tmp_path).model_dump(mode="json"),
                "discovery": {"method": "amplifier"},
            }
        )
    many = config_for(pictures, tmp_path).model_dump(mode="json")
    many["discovery"]["folds"] = 500
    with pytest.raises(InputError, match="training images for 500 folds"):
        open_search(DiscoverConfig.model_validate(many))
    with pytest.raises(InputError, match=r"dataset: .*discovered_column is a column of dataset\.discovered"):
        load_discovery("digits", overrides={"dataset.discovered_column": "cluster"})


def test_the_search_of_a_preset_is_its_own_or_on_the_images_of_augment():
    assert load_discovery("celeba").discovery.budget.steps == 1000
    digits = load_discovery("digits", overrides={"discovery.models": 5})
    assert (digits.name, digits.dataset.reader, digits.discovery.models) == ("digits", "digits", 5)
    with pytest.raises(InputError, match="there is no preset augment/nothing"):
        load_discovery("nothing")
