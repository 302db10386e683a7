"""Bad input is exit code 2 and one line, whatever the command."""

import pytest
from typer.testing import CliRunner

from flows.command_line import app

BAD = [
    "augment nope",
    "augment digits --config nope.yaml",
    "augment digits --set nope=1",
    "calibrate nope",
    "calibrate digits --set calibration.budget=few",
    "clean --store nowhere://x",
    "clean --older-than soon",
    "convert nope.pt --out out",
    "deploy nope",
    "describe nope",
    "describe nope.yaml",
    "doctor nope",
    "doctor digits --backbone nope",
    "doctor --backbone nope",
    "downstream nope",
    "headroom nope",
    "headroom digits --recipe nope",
    "init faces --images nope",
    "evaluate-backbone nope",
    "evaluate-backbone digits --set out=nope",
    "evaluate-backbone digits --set quality=null",
    "metrics --real nope --generated nope",
    "plan nope",
    "plan digits --set backbone.path=nope",
    "presets --config nope.yaml",
    "sample --backbone nope --out out",
    "sample --out out",
    "sample --backbone nope",
    "sample --preset nope --out out",
    "score nope --backbone nope --out scores.parquet",
    "train-backbone nope",
    "review nope --decisions nope.json",
    "submit nope --set seed",
    "verify nope",
    "verify nope/manifest.json",
]


@pytest.mark.parametrize("command", BAD + [f"{command} --json -q" for command in BAD])
def test_bad_input_ends_with_two_and_one_line(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    ended = CliRunner().invoke(app, command.split())

    assert ended.exit_code == 2, ended.output
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: "), ended.stderr
    assert ended.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
