"""--config FILE: presets are taken from that file alone, and commands that reports repeat name it."""

import pytest

from tasks.config.preset_files import deployments_of, list_presets
from tasks.config.presets import command_of, load_preset, training_of
from tasks.config.runs import AugmentConfig
from tasks.errors import InputError

PRESETS = """
deployments:
  - name: scans
    description: Scans of somebody's.
    entrypoint: flows.augment:augment
    parameters:
      config: {name: scans, dataset: {reader: digits}, backbone: {path: models/scans}, store: out}
  - name: scans
    entrypoint: flows.train_backbone:train_backbone
    parameters:
      config: {name: scans, dataset: {reader: digits}, out: models/scans}
"""


@pytest.fixture
def named(tmp_path, monkeypatch):
    path = tmp_path / "my scans.yaml"
    path.write_text(PRESETS)
    monkeypatch.setenv("MINORITY_CONFIG", str(path))
    return path


def test_presets_are_those_of_the_file_and_no_other(named):
    assert [(flow, name) for flow, name, _ in list_presets()] == [("augment", "scans"), ("backbone", "scans")]
    assert load_preset(AugmentConfig, "scans").store == "out"
    with pytest.raises(InputError, match="there is no preset augment/digits; there are scans"):
        load_preset(AugmentConfig, "digits")
    assert deployments_of("scans") == (named, ["augment", "backbone"])


def test_commands_that_are_repeated_name_the_file(named):
    config = load_preset(AugmentConfig, "scans", overrides={"seed": 3})

    assert command_of(config) == f"minority augment scans --config '{named}' --set seed=3"
    assert training_of("models/scans") == f"minority train-backbone scans --config '{named}'"


def test_a_file_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MINORITY_CONFIG", str(tmp_path / "none.yaml"))

    with pytest.raises(InputError, match=r"--config: there is no file .*none\.yaml; name one with presets"):
        list_presets()
