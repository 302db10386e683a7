import shlex

import pytest

from tasks.backbone.model_card import command
from tasks.backbone.train import quality_figures
from tasks.config.presets import load_preset, parse_overrides
from tasks.config.runs import TrainBackboneConfig
from tasks.errors import InputError

FEW = {
    "quality.samples": 8,
    "quality.sampling_steps": 3,
    "quality.bits_images": 4,
    "quality.bits_steps": 3,
    "quality.features.classifier.steps": 2,
}


def evaluated(out, **overrides):
    from tasks.backbone.train import evaluate

    changes = {key.replace("__", "."): value for key, value in overrides.items()}
    config = load_preset(TrainBackboneConfig, "digits", overrides=FEW | {"out": str(out)} | changes)
    return config, evaluate(config)


@pytest.fixture
def tiny(make_backbone, tmp_path):
    return make_backbone(tmp_path / "tiny")


def test_a_finished_backbone_is_evaluated_and_only_its_card_and_its_figures_change(tiny, tmp_path):
    before = {path: path.read_bytes() for path in (tmp_path / "tiny").rglob("*") if path.is_file()}

    config, card = evaluated(tiny, published="2.94 bits/dim of another model (somebody, 2020)")

    after = {path: path.read_bytes() for path in (tmp_path / "tiny").rglob("*") if path.is_file()}
    assert {path for path in after if after[path] != before.get(path)} == {
        card,
        tmp_path / "tiny" / "quality.json",
    }
    figures = quality_figures(config)
    assert figures["samples"] == 8
    assert f"{figures['held_out_bits']['backbone']:.3f} +/-" in card.read_text()
    text = card.read_text()
    assert "| bits/dim, smaller is better | 4 training images | 4 held-out images |" in text
    assert "| baseline: a histogram of grey levels for every pixel |" in text
    assert "of 8 images each" in text
    assert "**Published figures**: 2.94 bits/dim of another model (somebody, 2020)" in text
    assert "17 occur in the training split" in " ".join(text.split())
    assert f"`{command('evaluate-backbone', config)}`" in text


def test_the_command_on_the_card_makes_the_same_config_again():
    overrides = {"training.steps": 7, "training.augmentation": None, "published": "it's 3.0", "dataset.split.seed": 4}
    config = load_preset(TrainBackboneConfig, "digits", overrides=overrides | {"out": "/tmp/x", "device": "cpu"})

    program, verb, preset, *options = shlex.split(command("train-backbone", config))

    assert (program, verb, preset) == ("minority", "train-backbone", "digits")
    again = load_preset(TrainBackboneConfig, preset, overrides=parse_overrides(options[1::2]))
    assert again.model_dump(exclude={"out", "device"}) == config.model_dump(exclude={"out", "device"})
    assert "/tmp/x" not in command("train-backbone", config)
    assert command("train-backbone", load_preset(TrainBackboneConfig, "digits")) == "minority train-backbone digits"


def test_a_backbone_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path / 'none'} does not exist"):
        evaluated(tmp_path / "none")


def test_images_to_evaluate_on_are_asked_for_before_training(tmp_path):
    from tasks.backbone.train import check_data
    from tasks.inputs.real_data import load_real_data

    config = load_preset(
        TrainBackboneConfig, "digits", overrides={"out": str(tmp_path), "dataset.split.validation_fraction": 0}
    )

    with pytest.raises(InputError, match=r"there are 0; set dataset.split.validation_fraction"):
        check_data(config, load_real_data(config.dataset))
