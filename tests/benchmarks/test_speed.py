"""The speed benchmark runs from the command line, with random weights and on a folder, and counts work rightly."""

import json
import sys

import pytest
import torch
from torch import nn

from benchmarks import speed
from benchmarks.network_work import measure_work
from benchmarks.speed_arms import open_network, parse_engine
from benchmarks.tables import markdown
from minority.engine.prepare import EngineSettings

pytestmark = pytest.mark.system


def test_every_sampler_and_engine_gets_a_row(monkeypatch, capsys, tmp_path):
    command = f"speed --backbone backbones/digits --steps 5 --batch 2 --repeats 1 --out {tmp_path}"
    engines = "--engines fp32+channels_last,fp32+channels_last+cuda_graphs+checkpoint --samplers dpm-solver --profile"
    monkeypatch.setattr(sys, "argv", f"{command} {engines}".split())

    speed.main()

    content = json.loads((tmp_path / "speed.json").read_text())
    rows = [(row["sampler"], row["engine"], row["forward / backward"]) for row in content["rows"]]
    best = "fp32+channels_last+cuda_graphs+checkpoint"
    assert rows == [
        ("the published loop", "fp32", "7 / 1"),
        ("sgms-published", "fp32+channels_last", "6 / 1"),
        ("sgms-published", best, "6 / 1"),
        ("ancestral", best, "5 / 0"),
        ("dpm-solver", best, "20 / 0"),
    ]
    assert all(row["samples a second"] > 0 and row["of peak, %"] > 0 for row in content["rows"])
    assert torch.__version__.startswith(content["machine"]["torch"])
    out = capsys.readouterr().out
    assert "pixels differ by at most 0 of 255" in out or "pixels differ by at most 1 of 255" in out
    assert "Roofline, fp32" in out
    assert "### the published loop, fp32" in out
    assert "convolution" in out


def test_an_adm_network_has_the_published_shape_at_another_width():
    backbone = open_network("imagenet64", width=32)

    assert backbone.image_shape == (3, 64, 64)
    assert backbone.num_classes == 1000
    assert backbone.denoiser.unet.config.block_out_channels == [32, 64, 96, 128]
    assert backbone.denoiser.unet.config.out_channels == 6  # it learns its variance


@pytest.mark.parametrize("text", ["fp8", "channels_last", "bf16+fast"])
def test_an_unknown_engine_is_refused(text):
    with pytest.raises(SystemExit, match="is not a precision"):
        parse_engine(text)


def test_an_engine_is_a_precision_and_options():
    assert parse_engine("bf16+compile") == ("bf16", EngineSettings(compile=True))


def test_the_work_of_a_matrix_product_is_its_closed_form():
    layer = nn.Linear(64, 32, bias=False).requires_grad_(False)

    work = measure_work(layer, torch.ones(16, 64))

    assert work.forward == 2 * 16 * 64 * 32
    assert work.backward == work.forward  # to the input alone
    assert work.bytes == 4 * (16 * 64 + 64 * 32 + 16 * 32)
    assert work.flop(3, 2) == 5 * work.forward


def test_a_table_has_a_line_for_every_row():
    text = markdown([{"name": "a", "value": 0.123456}, {"name": None, "value": 12345.6}])

    assert text.splitlines() == ["| name | value |", "| --- | --- |", "| a | 0.123 |", "|  | 12346 |"]
