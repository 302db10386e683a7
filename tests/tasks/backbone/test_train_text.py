"""A text-to-image model in miniature, trained and evaluated by a config: its card, and the figures beside it."""

import json
from pathlib import Path

import pytest

from tasks.backbone.train import evaluate, quality_figures
from tasks.backbone.train_text import train_text_backbone
from tasks.config.presets import load_preset
from tasks.config.runs import TrainBackboneConfig

pytest.importorskip("transformers")
TINY = {
    "autoencoder_widths": [8, 8],
    "autoencoder_steps": 1,
    "widths": [16, 16],
    "text_width": 16,
    "text_layers": 1,
    "steps": 1,
    "horizon": None,
    "cooldown": 0,
    "batch_size": 2,
}
FEW = {"samples": 12, "sampling_steps": 1, "classifier": {"steps": 2, "width": 4}}


def test_the_figures_of_a_text_to_image_models_card_lie_beside_it(tmp_path):
    overrides = {"out": str(tmp_path / "tiny"), "dataset.colours": "skewed", "text.model": TINY, "text.quality": FEW}
    config = load_preset(TrainBackboneConfig, "coloured-digits", overrides=overrides)
    train_text_backbone(config, config.text, on_done=lambda done, total: None)
    assert quality_figures(config) is None

    card = evaluate(config).read_text()

    figures = quality_figures(config)
    assert f"{figures['obeyed']:.1%} of 12" in card
    assert f'"{figures["worst"]["prompt"]}", {figures["worst"]["obeyed"]:.0%}' in card
    assert f"{figures['held_out_distance']:.3f}" in card
    assert isinstance(figures["memorised"], bool)
    assert json.loads((tmp_path / "tiny" / "quality.json").read_text()) == figures


def test_the_card_of_the_demos_model_says_that_its_command_gives_other_weights():
    card = " ".join((Path(__file__).parents[3] / "backbones" / "t2i-demo" / "README.md").read_text().split())

    assert "resumed once with a changed learning-rate schedule" in card
    assert "similar, not the same, weights" in card
