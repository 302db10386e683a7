from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.commands.doctor import examine, examine_backbone
from tasks.config.preset_files import list_presets
from tasks.errors import InputError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """The presets' stores are relative: the doctor tries to write them where it is started."""
    monkeypatch.chdir(tmp_path)


def test_the_doctor_finds_nothing_missing_here_and_evaluates_every_augment_preset():
    findings = examine()

    assert [finding for finding in findings if finding.startswith("MISSING")] == []
    for flow, name, _ in list_presets():
        if flow == "augment":
            assert sum(finding.startswith(f"augment/{name}: ") for finding in findings) == 1
    assert all("\n" not in finding for finding in findings)


def test_the_doctor_names_what_a_preset_lacks(tmp_path, monkeypatch):
    # Away from a developer's own data, backbones and downloads.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINORITY_DATA", str(tmp_path / "nothing"))

    found = dict(finding.split(": ", 1) for finding in examine() if finding.startswith("augment/"))

    assert found["augment/digits"] == "ready"
    assert found["augment/celeba"].startswith("not ready: CelebA folder ")
    assert "does not exist" in found["augment/celeba"]


def test_the_doctor_names_the_server_runs_will_use(monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://head:4200/api")

    assert "ok server: http://head:4200/api" in examine()


def test_the_doctor_says_what_a_backbone_is_and_how_it_was_read(make_backbone, tmp_path):
    folder = Path(make_backbone(tmp_path / "model"))
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = {f"module.{name}": value.half() for name, value in load_file(path).items()}
    path.unlink()
    save_file(tensors, path.with_name("diffusion_pytorch_model.fp16.safetensors"))

    findings = examine_backbone(str(folder), {})

    assert "ok images: 8x8 pixels of 1 channels, labels 0 ... 9" in findings
    assert "ok family: UNet2DModel, numbered noise levels, predicts epsilon" in findings
    weights = "unet/diffusion_pytorch_model.fp16.safetensors, variant fp16 raised to fp32, prefix module. taken off"
    assert f"ok weights: {weights}" in findings
    assert "ok variance: not learned; bits/dim take beta (fixed_large)" in findings


def test_the_doctor_reads_adm_checkpoints_and_tells_a_learned_variance(tiny_pipelines, tmp_path):
    first, upsampler, flags = tiny_pipelines.adm_files(tmp_path)
    torch.save({"ema": torch.load(first, weights_only=True), "step": 9}, tmp_path / "state.pt")

    findings = examine_backbone(str(tmp_path / "state.pt"), flags["first"])

    assert "ok family: ADM U-Net, linear schedule, predicts epsilon" in findings
    assert "ok weights: state.pt, prefix ema. taken off" in findings
    assert "ok variance: learned (within a range)" in findings
    alone = examine_backbone(str(upsampler), flags["upsampler"])
    assert "ok variance: that of an upsampler, which gets no scores of its own" in alone


def test_the_doctor_asks_the_network_once_and_refuses_what_is_no_number(make_backbone, tmp_path):
    path = Path(make_backbone(tmp_path / "huge")) / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["conv_in.weight"].fill_(3e38)
    tensors["conv_in.bias"].fill_(3e38)
    save_file(tensors, path)

    with pytest.raises(InputError, match=r"^backbone: the answer of huge to an empty state is NaN or infinite in 100"):
        examine_backbone(str(tmp_path / "huge"), {})
