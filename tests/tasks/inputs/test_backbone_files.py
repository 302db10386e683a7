import os
import shutil
import time
from pathlib import Path

import pytest

from tasks.config.sections import BackboneConfig
from tasks.errors import InputError
from tasks.inputs.backbone_files import load_stage
from tasks.inputs.workspace import open_backbone, open_named_backbone, open_workspace


def settle(folder, *, seconds_ago=60):
    """As if the files had been written a while ago."""
    moment = time.time() - seconds_ago
    for path in Path(folder).rglob("*"):
        os.utime(path, (moment, moment))


@pytest.fixture
def settled(make_backbone, tmp_path):
    folder = make_backbone(tmp_path / "settled")
    settle(folder)
    return folder


def test_files_that_stay_as_they_are_are_loaded_once(settled):
    config = BackboneConfig(path=settled)

    assert open_backbone(config) is open_backbone(config)
    # Where the checksum must hold or not, the same network serves.
    checked = BackboneConfig(path=settled, sha256=open_backbone(config).sha256)
    assert open_backbone(checked) is open_backbone(config)
    with pytest.raises(InputError, match="expected 000000000000"):
        open_backbone(BackboneConfig(path=settled, sha256="0" * 64))


def test_the_check_and_the_workspace_of_a_command_share_one_network(settled, tiny_config):
    config = tiny_config(backbone__path=settled, device="cpu")

    before = open_backbone(config.backbone)

    assert open_workspace(config).backbone is before


def test_files_that_changed_are_loaded_again(settled, make_backbone, tmp_path):
    config = BackboneConfig(path=settled)
    before = open_backbone(config)
    other = Path(make_backbone(tmp_path / "other", seed=1)) / "unet" / "diffusion_pytorch_model.safetensors"

    shutil.copy(other, Path(settled) / "unet" / other.name)
    settle(settled, seconds_ago=30)

    after = open_backbone(config)
    assert after is not before
    assert after.sha256 != before.sha256


def test_files_just_written_are_loaded_every_time(make_backbone, tmp_path):
    config = BackboneConfig(path=make_backbone(tmp_path / "fresh"))

    assert load_stage(config) is not load_stage(config)


def test_flags_tell_one_checkpoint_from_another(tiny_pipelines, tmp_path):
    first, _, flags = tiny_pipelines.adm_files(tmp_path)
    settle(tmp_path)
    small = BackboneConfig(path=str(first), flags=flags["first"])
    cosine = BackboneConfig(path=str(first), flags=flags["first"] | {"noise_schedule": "cosine"})

    assert open_backbone(small) is open_backbone(small)
    assert open_backbone(cosine).schedule.abar[500] != open_backbone(small).schedule.abar[500]


def test_a_network_of_ones_own_is_made_anew(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[3])
    config = BackboneConfig(path="examples.own_model:load")

    assert load_stage(config) is not load_stage(config)


def test_a_bomb_in_a_backbone_section_is_told_in_one_line(tmp_path):
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))

    with pytest.raises(
        InputError, match=r"^backbone: .*bomb\.yaml cannot be read as YAML \(its aliases unfold to more"
    ):
        open_named_backbone(str(tmp_path / "bomb.yaml"), {})
