"""Texts of a config are what was written, wherever YAML is read."""

import pytest
from pydantic import ValidationError

from datasets.storage.yaml_text import load_yaml
from tasks.config.dataset_file import load_dataset
from tasks.config.presets import load_preset, parse_overrides, presets_in, validate
from tasks.config.runs import AugmentConfig
from tasks.config.sections import BackboneConfig, DatasetConfig, read_yaml_section
from tasks.config.written import as_declared
from tasks.errors import InputError

WORDS = ("no", "yes", "on", "off", "01", "1e3", "2020-01-01", "null", "~", "1_000", "0x10", "12:30", "1.50")
TABLE = "name: own\ntable: t.csv\nimage_column: file\nlabel_column: label\n"


def test_words_given_on_the_command_line_are_texts_where_texts_are_wanted():
    found = parse_overrides(
        [
            f"dataset.table.classes=[{', '.join(WORDS)}]",
            "dataset.table.label_values={no: 01, null: yes}",
            "dataset.table.groups=[on, {column: off, edges: [1, 2]}]",
            "dataset.target=No",
            "dataset.categories=[1e3, on]",
            "dataset.tars.classes=[no, 01]",
            "store=007",
            "seed=010",
            "plan.quota=null",
            "plan.baseline=no",
            "sampler.self_guidance.scale=3",
            "preset=no",
        ]
    )

    assert tuple(found["dataset.table.classes"]) == WORDS
    assert found["dataset.table.label_values"] == {"no": "01", "null": "yes"}
    assert found["dataset.table.groups"] == ["on", {"column": "off", "edges": [1, 2]}]
    assert (found["dataset.target"], found["dataset.categories"]) == ("No", ["1e3", "on"])
    assert found["dataset.tars.classes"] == ["no", "01"]
    assert found["store"] == "007"
    assert (found["seed"], found["plan.quota"], found["plan.baseline"]) == (8, None, False)
    assert found["sampler.self_guidance.scale"] == 3
    assert found["preset"] is False  # no setting of a run: as YAML takes it


def test_a_preset_and_a_table_within_it_hold_texts():
    text = (
        "deployments:\n- name: 01\n  entrypoint: flows.augment:augment\n  description: no\n  schedules: []\n"
        "  parameters:\n    config:\n      name: 0_1\n      seed: 3\n      store: on\n"
        "      backbone: {path: 1e3, revision: 01, flags: {class_cond: yes, preset: celeba64}}\n"
        "      dataset:\n        reader: image_table\n        folder: 2020-01-01\n"
        "        table: {name: own, table: t.csv, image_column: no, label_column: yes, "
        f"classes: [{', '.join(WORDS)}]}}\n"
        "      plan: {quota: null, baseline: no}\n"
    )
    ((flow, entry),) = presets_in(text, source="own.yaml")

    config = validate(AugmentConfig, entry["parameters"]["config"], overrides={})

    assert (flow, entry["name"], entry["description"]) == ("augment", "01", "no")
    assert (config.name, config.seed, config.store) == ("0_1", 3, "on")
    assert config.dataset.folder == "2020-01-01"
    assert config.dataset.table.classes == WORDS
    assert (config.dataset.table.image_column, config.dataset.table.label_column) == ("no", "yes")
    assert (config.backbone.path, config.backbone.revision) == ("1e3", "01")
    assert config.backbone.flags == {"class_cond": True, "preset": "celeba64"}
    assert (config.plan.quota, config.plan.baseline) == (None, False)


def test_the_yaml_file_of_a_backbone_holds_texts(tmp_path):
    path = tmp_path / "b.yaml"
    path.write_text("path: 01\nrevision: 1e3\ndownload: no\nflags: {image_size: 64}\n")

    section = read_yaml_section(str(path))

    assert BackboneConfig.model_validate(section) == BackboneConfig(
        path="01", revision="1e3", download=False, flags={"image_size": 64}
    )


def test_values_that_are_plain_already_stay_as_they_are():
    plain = load_preset(AugmentConfig, "digits").model_dump(mode="json")

    assert as_declared(plain, AugmentConfig) == plain


def test_a_number_where_a_text_or_nothing_is_wanted_is_a_text():
    assert as_declared(load_yaml("{reader: digits, folder: 5}"), DatasetConfig) == {"reader": "digits", "folder": "5"}
    assert as_declared(load_yaml("{reader: digits, folder: ~}"), DatasetConfig)["folder"] is None


@pytest.mark.parametrize(
    ("content", "reader", "folder"),
    [
        (TABLE, "image_table", "data/own"),
        ("reader: cifar10\nfolder: 01\n", "cifar10", "01"),
        ("reader: image_table\nfolder: x\ntable: own.yaml\n", "image_table", "x"),
    ],
)
def test_a_set_may_stand_in_a_file_of_its_own(tmp_path, monkeypatch, content, reader, folder):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text(TABLE)
    (tmp_path / "set.yaml").write_text(content)

    found = load_dataset("set.yaml", overrides={"dataset.split.seed": 7})

    assert (found.reader, found.folder, found.split.seed) == (reader, folder, 7)
    assert (found.table is None) == (reader != "image_table")
    assert load_dataset("digits", overrides={}) == load_preset(AugmentConfig, "digits").dataset


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read as YAML"),
        ("[", "cannot be read as YAML"),
        ("- a", "must hold keys and values"),
        ("reader: cifar11", "dataset.reader"),
        ("name: own", "the key table is missing"),
    ],
)
def test_a_file_that_is_no_set_is_one_line(tmp_path, content, message):
    if content is not None:
        (tmp_path / "set.yaml").write_text(content)

    with pytest.raises(InputError, match=message) as caught:
        load_dataset(str(tmp_path / "set.yaml"), overrides={})
    assert "\n" not in str(caught.value)


def test_settings_of_tars_do_not_change_the_configs_of_other_readers():
    assert "tars" not in DatasetConfig(reader="digits").model_dump(mode="json")
    with_tars = DatasetConfig(reader="image_tars", tars={"classes": ["a"]})
    assert DatasetConfig.model_validate_json(with_tars.model_dump_json()) == with_tars
    with pytest.raises(ValidationError, match="classes is empty"):
        DatasetConfig(reader="image_tars", tars={"classes": []})
