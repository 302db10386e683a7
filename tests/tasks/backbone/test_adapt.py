"""Adapting a tiny Stable Diffusion to digit scans by a config: files, pictures, card, and bad input in one line."""

import json
from pathlib import Path

import pytest
from PIL import Image
from pydantic import ValidationError

from tasks.backbone.adapt import evaluate_adapter, learn, progress_folder
from tasks.config.presets import load_preset
from tasks.config.runs import AdaptConfig, AugmentConfig
from tasks.errors import InputError
from tasks.inputs.real_data import load_real_data
from tasks.inputs.workspace import open_fitting_backbone

pytest.importorskip("transformers")
pytest.importorskip("peft")
GOLDEN = Path(__file__).parents[2] / "minority" / "golden" / "t2i"
SETTINGS = {
    "name": "tiny",
    "dataset": {"reader": "digits", "split": {"test_fraction": 0.9, "validation_fraction": 0.1, "imbalance": 5}},
    "backbone": {"path": str(GOLDEN / "sd"), "prompts": {"templates": "a <{label}>"}, "fit": True},
    "adaptation": {"rank": 2, "steps": 2, "batch_size": 2, "look_every": 2},
    "quality": {"samples": 10, "sampling_steps": 1, "classifier": {"steps": 2, "width": 4}},
}


def config(tmp_path, **changes):
    return AdaptConfig(**(SETTINGS | {"out": str(tmp_path / "adapter")} | changes))


@pytest.mark.filterwarnings("ignore")
def test_files_pictures_and_card_are_written_and_the_adapter_is_read_again(tmp_path):
    told, pictures = [], []
    adapting = config(tmp_path)

    folder = learn(adapting, on_done=lambda done, total: told.append((done, total)), on_picture=pictures.append)
    card = evaluate_adapter(adapting).read_text()

    assert told == [(1, 2), (2, 2)]
    assert {p.name for p in folder.iterdir()} == {
        "pytorch_lora_weights.safetensors",
        "learned_embeds.safetensors",
        "README.md",
        "quality.json",
    }
    figures = json.loads((folder / "quality.json").read_text())
    assert figures["worst"]["prompt"].startswith("a <")
    assert f"{figures['obeyed']:.1%} of {figures['samples']}" in card
    assert [picture.name for picture in pictures] == ["samples-00000002.png"]
    assert Image.open(pictures[0]).width > 8 * 48
    lines = (progress_folder(adapting) / "losses.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    assert "Learned words**: `<0>`, `<1>`" in card
    assert "memorised" in card
    assert "scale: 4" in card
    section = SETTINGS["backbone"] | {"adapters": [str(folder)]}
    overrides = {"backbone": section, "dataset": SETTINGS["dataset"]}
    augment = load_preset(AugmentConfig, "digits", overrides=overrides)
    backbone = open_fitting_backbone(augment.backbone, load_real_data(augment.dataset))
    assert sum("textual inversion" in line for line in backbone.facts) == 10


def test_bad_input_ends_in_one_line_before_anything_is_learned(tmp_path):
    section = SETTINGS["backbone"]
    cases = {
        "is distilled": {"backbone": section | {"distilled": True}},
        "makes images of": {"backbone": section | {"fit": False}},
        "tokens here; choose a word of one token": {"adaptation": {"start_word": "dermatofibroma"}},
        "has .* tokens": {"backbone": section | {"prompts": {"templates": "a {label} " + "photo " * 20}}},
    }
    for reason, changes in cases.items():
        with pytest.raises(InputError, match=reason):
            learn(config(tmp_path, **changes), on_done=lambda *_: None, on_picture=lambda _: None)
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize(
    ("backbone", "reason"),
    [
        ({"path": "x"}, "backbone.prompts is not set"),
        (SETTINGS["backbone"] | {"upsampler": {"path": "y"}}, "upsampler has no effect"),
    ],
)
def test_configs_that_cannot_be_adapted_are_refused(tmp_path, backbone, reason):
    with pytest.raises(ValidationError, match=reason):
        config(tmp_path, backbone=backbone)
