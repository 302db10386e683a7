"""Every door through which weights come in: a pickle that would run code does not run, and a torn file is named."""

import pickle
from pathlib import Path

import pytest
import torch
from diffusers import LDMPipeline

from minority.backbones import load_backbone
from minority.downstream.networks import build_network
from minority.downstream.settings import NetworkSettings
from minority.features import ExtractorSettings, build_extractor
from minority.features.encoders import Lpips, load_encoder
from minority.training.checkpoint import read_checkpoint


class RunsCode:
    """A harmless stand-in for an attack: unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def open_classifier(path):
    settings = NetworkSettings(kind="resnet18", weights=str(path), input_size=32)
    build_network(settings, image_shape=(8, 8, 1), num_classes=2, seed=0)


def open_dinov2(path):
    (path.parent / "hubconf.py").write_text("import torch\ndef small(pretrained):\n    return torch.nn.Linear(2, 1)\n")
    build_extractor(
        ExtractorSettings(kind="dinov2", network="small", source="hub", repository=str(path.parent), weights=str(path))
    )


def open_lpips(path):
    pytest.importorskip("lpips")
    Lpips("squeeze", weights=path)


DOORS = {
    "adm": lambda path: load_backbone(path, preset="celeba64"),
    "encoder": lambda path: load_encoder("squeezenet1_1", path),
    "lpips": open_lpips,
    "torchvision features": lambda path: build_extractor(
        ExtractorSettings(kind="torchvision", network="squeezenet1_1", weights=str(path))
    ),
    "dinov2 features": open_dinov2,
    "inception features": lambda path: build_extractor(ExtractorSettings(kind="inception", weights=str(path))),
    "downstream classifier": open_classifier,
    "training checkpoint": lambda path: read_checkpoint(path, identity="mine"),
}
#: How each says that it refuses a file that would run code, and one that is torn, both with the way out.
REFUSED = {
    "inception features": r"weights\.pt is not the TorchScript file .*; fetch that one\.$",
    "training checkpoint": r"weights\.pt is not a readable training checkpoint; remove it to train from the start\.$",
}
RUNS_CODE = (
    r"weights\.pt holds more than tensors and could run code when opened, so it is refused \(.*\); take the weights"
)
TORN = r"weights\.pt is (truncated or not a checkpoint \(.*\)|empty); fetch or copy it again\.$"
TENSORS = {"identity": torch.zeros(1), "weight": torch.arange(5000.0), "bias": torch.arange(3000.0)}


@pytest.fixture(params=DOORS)
def door(request):
    """A door by name: how it is opened, and whether it has words of its own."""
    return DOORS[request.param], REFUSED.get(request.param)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize("form", ["archive", "old archive", "bare pickle"])
def test_a_pickle_that_would_run_code_is_refused_in_one_line_and_does_not_run(tmp_path, door, form):
    opened, words = door
    trace, path = tmp_path / "it ran", tmp_path / "weights.pt"
    if form == "bare pickle":
        path.write_bytes(pickle.dumps({"weight": RunsCode(trace)}))
        words = words or TORN
    else:
        torch.save({"weight": RunsCode(trace)}, path, _use_new_zipfile_serialization=form == "archive")

    with pytest.raises(ValueError, match=words or RUNS_CODE) as error:
        opened(path)

    assert "\n" not in str(error.value)
    assert not trace.exists()


def test_the_stand_in_for_an_attack_would_run_where_pickles_are_trusted(tmp_path):
    torch.save({"weight": RunsCode(tmp_path / "it ran")}, tmp_path / "weights.pt")

    torch.load(tmp_path / "weights.pt", weights_only=False)

    assert (tmp_path / "it ran").exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize("kept", [0, 4, 100, 0.3, 0.7, 0.99, b"<html>not found</html>", bytes(64)])
def test_a_torn_file_is_named_in_one_line_with_the_way_out(tmp_path, door, kept):
    opened, words = door
    path = tmp_path / "weights.pt"
    torch.save(TENSORS, path)
    whole = path.read_bytes()
    path.write_bytes(kept if isinstance(kept, bytes) else whole[: int(kept * len(whole)) if kept < 1 else kept])

    with pytest.raises(ValueError, match=words or TORN) as error:
        opened(path)

    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize("content", [{"weight": torch.zeros(3)}, [1, 2], {"state_dict": {"weight": torch.zeros(3)}}])
def test_a_file_with_something_else_is_named_in_one_line_with_the_way_out(tmp_path, door, content):
    opened, _ = door
    torch.save(content, tmp_path / "weights.pt")

    with pytest.raises(ValueError, match=r"; (give|save|take|name|fetch|remove|it resembles) ") as error:
        opened(tmp_path / "weights.pt")

    assert "weights.pt" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("part", ["unet", "vqvae"])
def test_a_pickle_in_a_diffusers_folder_is_refused_and_does_not_run(tmp_path, tiny_pipelines, part):
    pipeline = LDMPipeline(
        vqvae=tiny_pipelines.autoencoder(),
        unet=tiny_pipelines.unet(in_channels=4, out_channels=4),
        scheduler=tiny_pipelines.ddim(),
    )
    folder = tiny_pipelines.save(pipeline, tmp_path / "model")
    weights = folder / part / "diffusion_pytorch_model.safetensors"
    assert load_backbone(folder).codec is not None
    weights.unlink()
    torch.save({"weight": RunsCode(tmp_path / "it ran")}, weights.with_suffix(".bin"))

    with pytest.raises(ValueError, match=rf"{part}/diffusion_pytorch_model\.bin holds more than tensors and could run"):
        load_backbone(folder)

    assert not (tmp_path / "it ran").exists()
