"""`minority doctor NAME`: what the presets of a name lack."""

import shutil

import pytest

from tasks.config.preset_files import PREFECT_FILE, list_presets
from tasks.config.presets import load_preset
from tasks.config.runs import TrainBackboneConfig
from tasks.errors import InputError
from tasks.estimates.readiness import examine_presets

NAMES = {flow: {name for kind, name, _ in list_presets() if kind == flow} for flow in ("backbone", "augment")}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Stores of presets are relative."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINORITY_DATA", str(tmp_path / "nothing"))


def test_all_flows_of_a_name_are_looked_at_in_the_order_of_their_runs():
    backbone, calibrate, augment, downstream = examine_presets("digits")

    trained = PREFECT_FILE.parent / "backbones" / "digits"
    assert backbone == f"ok backbone/digits: trained already, {trained}; 702,625 parameters"
    assert calibrate == "ok calibrate/digits: ready"
    assert augment == "ok augment/digits: ready"
    assert downstream == "ok downstream/digits: waits for a published run of digits: minority augment digits"


def test_what_is_missing_is_named_for_every_flow_that_needs_it():
    findings = dict(finding.split(": ", 1) for finding in examine_presets("ham10000"))

    for flow in ("backbone", "calibrate", "augment"):
        assert "ham10000 is not a folder" in findings[f"MISSING {flow}/ham10000"]


def test_a_backbone_that_is_not_trained_yet_is_waited_for(tmp_path, monkeypatch):
    presets = PREFECT_FILE.read_text().replace("path: backbones/digits", "path: backbones/later")
    path = tmp_path / "presets.yaml"
    path.write_text(presets.replace("out: backbones/digits", "out: backbones/later"))
    monkeypatch.setenv("MINORITY_CONFIG", str(path))

    backbone, _, augment, _ = examine_presets("digits")

    assert backbone.startswith("ok backbone/digits: ready to be trained; 702,625 parameters, 332 training images")
    command = f"minority train-backbone digits --config {path}"
    assert augment == f"ok augment/digits: waits for its backbone backbones/later: {command}"


def test_a_folder_that_is_no_backbone_is_not_written_into(tmp_path, monkeypatch):
    shutil.copy(PREFECT_FILE, tmp_path / "presets.yaml")
    text = (tmp_path / "presets.yaml").read_text()
    (tmp_path / "presets.yaml").write_text(text.replace("out: backbones/digits", f"out: {tmp_path}"))
    monkeypatch.setenv("MINORITY_CONFIG", str(tmp_path / "presets.yaml"))

    backbone = examine_presets("digits")[0]

    assert backbone.startswith(f"MISSING backbone/digits: out: {tmp_path} exists and is no backbone")


def test_a_name_that_no_preset_has():
    with pytest.raises(InputError, match="there is no preset digit; did you mean digits"):
        examine_presets("digit")


@pytest.mark.parametrize("name", sorted(NAMES["backbone"] - NAMES["augment"]))
def test_a_backbone_without_an_augment_preset_says_how_it_is_used(name):
    *_, last = examine_presets(name)
    other = last.rsplit("minority augment ", 1)[1].removesuffix(".").split()

    assert last.startswith(f"note augment/{name}: there is none.")
    assert other[0] in NAMES["augment"]
    assert other[1:] == ["--set", f"backbone.path={load_preset(TrainBackboneConfig, name).out}"]
