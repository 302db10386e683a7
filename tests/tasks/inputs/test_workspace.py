import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.config.sections import BackboneConfig
from tasks.errors import InputError
from tasks.inputs.workspace import choose_device, open_backbone, open_workspace

WEIGHTS = Path("unet", "diffusion_pytorch_model.safetensors")


def refusal(config):
    with pytest.raises(InputError) as caught:
        open_workspace(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_workspace_is_loaded_once_a_process(tiny_config):
    assert open_workspace(tiny_config()) is open_workspace(tiny_config())


def test_a_workspace_holds_what_units_share(tiny_config):
    workspace = open_workspace(tiny_config())

    assert workspace.train_images.shape == (len(workspace.real.train), 8, 8, 1)
    assert workspace.train_images.dtype == np.uint8
    assert workspace.recipe == workspace.config.recipe(
        backbone_identity=workspace.backbone.identity, real_digest=workspace.real.digest
    )
    assert workspace.run_id == workspace.recipe
    assert not workspace.needs_labeller


def test_a_single_group_needs_no_classifier_to_recognise_it(tiny_config, make_backbone, tmp_path):
    for place in range(40):
        (tmp_path / "photos" / "room").mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(place).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / "room" / f"{place:03d}.png")
    backbone = make_backbone(tmp_path / "unconditional", num_classes=None)
    photos = {"dataset.reader": "folder", "dataset.folder": str(tmp_path / "photos"), "dataset.split.imbalance": None}

    workspace = open_workspace(tiny_config(**photos, backbone__path=backbone))

    assert workspace.real.groups == ["class=room"]
    assert not workspace.needs_labeller


def test_a_run_keeps_the_name_it_is_given(tiny_config):
    assert open_workspace(tiny_config(run_id="night-1")).run_id == "night-1"


def test_other_weights_make_another_recipe(tiny_config, make_backbone, tmp_path):
    other = make_backbone(tmp_path / "other", seed=1)

    assert open_workspace(tiny_config(backbone__path=other)).recipe != open_workspace(tiny_config()).recipe


def test_moved_weights_make_the_same_recipe(tiny_config, tiny_backbone, tmp_path):
    shutil.copytree(tiny_backbone, tmp_path / "moved")

    moved = open_workspace(tiny_config(backbone__path=str(tmp_path / "moved")))

    assert moved.recipe == open_workspace(tiny_config()).recipe


def test_a_backbone_for_other_images_is_refused_with_both_shapes(tiny_config, make_backbone, tmp_path):
    large = make_backbone(tmp_path / "large", side=16)

    message = refusal(tiny_config(backbone__path=large))

    assert "backbone large makes images of (1, 16, 16) (C, H, W), the dataset has (1, 8, 8)" in message


def test_a_backbone_that_knows_too_few_classes_is_refused(tiny_config, make_backbone, tmp_path):
    narrow = make_backbone(tmp_path / "narrow", num_classes=4)

    assert "backbone narrow knows 4 classes, the dataset has 10" in refusal(tiny_config(backbone__path=narrow))


def test_a_wrong_checksum_is_refused(tiny_config):
    message = refusal(tiny_config(backbone__sha256="0" * 64))

    assert "expected 000000000000..." in message
    assert "correct backbone.sha256" in message


def test_the_right_checksum_is_accepted(tiny_backbone):
    sha256 = open_backbone(BackboneConfig(path=tiny_backbone)).sha256

    assert open_backbone(BackboneConfig(path=tiny_backbone, sha256=sha256)).num_classes == 10


@pytest.mark.parametrize("part", [0, 0.5, 0.999], ids=["empty", "half", "nearly whole"])
def test_truncated_weights_are_refused_by_name(tiny_config, tiny_backbone, tmp_path, part):
    folder = Path(shutil.copytree(tiny_backbone, tmp_path / "torn"))
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: int(part * len(whole))])

    message = refusal(tiny_config(backbone__path=str(folder)))

    assert str(folder / WEIGHTS) in message
    assert "fetch or copy it again" in message


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_demanded_and_not_there_is_an_error():
    with pytest.raises(InputError, match="set device to auto or cpu"):
        choose_device("cuda")
    assert choose_device("auto") == "cpu"


def test_a_backbone_without_labels_needs_a_labeller_for_groups(tiny_config, tiny_celeba, make_backbone, tmp_path):
    backbone = make_backbone(tmp_path / "faces", channels=3, num_classes=None)
    dataset = {"reader": "celeba", "folder": str(tiny_celeba), "image_size": 8}

    workspace = open_workspace(tiny_config(name="celeba", dataset=dataset, backbone__path=backbone))

    assert workspace.needs_labeller
    assert workspace.real.groups == [f"Blond_Hair={b},Male={m}" for b in (0, 1) for m in (0, 1)]
    assert workspace.real.group_labels == [0, 0, 1, 1]
