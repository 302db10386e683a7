"""Offloaded text-to-image backbones, whose weights are moved as they are needed. Both devices are the CPU here."""

import importlib.util
from pathlib import Path

import pytest
import torch
from accelerate.hooks import CpuOffload, UserCpuOffloadHook

from minority.backbones import BackboneError
from minority.backbones.fitted import fitted
from minority.backbones.text.folder import TextToImage, load_text_to_image
from minority.backbones.text.offload import offloaded
from minority.backbones.text.prompts import Prompts
from minority.engine.prepare import EngineSettings, prepared
from minority.guidance.classifier_free import ClassifierFree
from minority.guidance.jepa_guidance import JepaGuidanceSettings
from minority.guidance.minority_prompt import MinorityPrompt
from minority.guidance.self_guidance import SelfGuidance
from minority.sampling.draw import check_backbone
from minority.sampling.sampler import sample
from minority.sampling.settings import SamplerSettings
from minority.solvers.ddim import Ddim
from tests.known_noise import Start

pytest.importorskip("transformers")
GOLDEN = Path(__file__).parents[1] / "golden" / "t2i"
PROMPTS = Prompts(texts=(("a photo of a dog",), ("a chef in a white coat",)), negative="rare")


def open_backbone(how, name="sd"):
    return load_text_to_image(GOLDEN / name, TextToImage(prompts=PROMPTS, offload=how))


def images_of(backbone):
    x = torch.randn(2, *backbone.state_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        states, _ = sample(
            backbone.denoiser,
            backbone.schedule.respaced("leading4"),
            Start(x),
            label=torch.tensor([0, 1]),
            guidance=[ClassifierFree(scale=3.0)],
            solver=Ddim(),
            space=backbone.space,
        )
        images = backbone.finish(states, seed=0, indices=[0, 1], label=None)[0]
        return images, backbone.encode(images.clamp(-1, 1))


@pytest.mark.parametrize("how", ["model", "sequential"])
@pytest.mark.parametrize("name", ["sd", "sdxl"])
@pytest.mark.parametrize("shape", [None, (1, 8, 8)])
def test_offloading_changes_no_image(how, name, shape):
    backbone = open_backbone(how, name)
    backbone = backbone if shape is None else fitted(backbone, shape)
    expected = images_of(backbone)

    moved = offloaded(backbone, "cpu")

    for one, other in zip(images_of(moved), expected, strict=True):
        assert torch.equal(one, other)
    for one, other in zip(images_of(backbone), expected, strict=True):  # which stays as it was
        assert torch.equal(one, other)
    assert not hasattr(backbone.denoiser.network, "_hf_hook")


def test_layer_by_layer_no_weight_stays_outside_the_host_between_calls():
    moved = offloaded(open_backbone("sequential"), "cpu")

    assert all(parameter.is_meta for parameter in moved.denoiser.network.parameters())
    images_of(moved)
    assert all(parameter.is_meta for parameter in moved.denoiser.network.parameters())
    assert all(parameter.is_meta for parameter in moved.codec.autoencoder.parameters())


def test_network_and_autoencoder_take_turns(monkeypatch):
    moved = offloaded(open_backbone("model"), torch.device("meta"))
    network, autoencoder = moved.denoiser.network, moved.codec.autoencoder
    moves, names = [], {id(network): "network", id(autoencoder): "autoencoder"}

    def leave(hook):
        moves.append((names[id(hook.model)], "leaves"))
        hook.model.to_empty(device="cpu")  # nothing comes back from meta; empty weights stand for it

    arrive = CpuOffload.pre_forward

    def enter(hook, module, *args, **kwargs):
        was_away = next(module.parameters()).device.type == "cpu"
        result = arrive(hook, module, *args, **kwargs)
        if was_away:
            moves.append((names[id(module)], "enters"))
        return result

    monkeypatch.setattr(UserCpuOffloadHook, "offload", leave)
    monkeypatch.setattr(CpuOffload, "pre_forward", enter)
    x = torch.zeros(1, *moved.state_shape, device="meta")
    time = torch.tensor([500], device="meta")
    text = moved.denoiser.prompts.look_up(torch.tensor([0]), batch=1).tensors["text"]

    with torch.no_grad():
        moved.encode(torch.zeros(1, *moved.image_shape, device="meta"))
        for _ in range(2):
            moved.denoiser.network(x, time, encoder_hidden_states=text)
        moved.codec.decode(x)

    assert moves == [
        ("autoencoder", "enters"),
        ("autoencoder", "leaves"),
        ("network", "enters"),
        ("network", "leaves"),
        ("autoencoder", "enters"),
    ]


def test_prompts_are_on_the_device_and_weights_are_not():
    moved = offloaded(open_backbone("model"), torch.device("meta"))

    assert all(buffer.is_meta for buffer in moved.denoiser.prompts.buffers())
    assert not any(parameter.is_meta for parameter in moved.denoiser.network.parameters())
    assert not any(parameter.is_meta for parameter in moved.codec.autoencoder.parameters())


def test_precision_is_that_of_the_weights_before_they_are_moved():
    backbone = open_backbone("model")
    half = prepared(backbone, device="meta", precision="bf16")

    assert {parameter.dtype for parameter in half.denoiser.network.parameters()} == {torch.bfloat16}
    assert hasattr(half.denoiser.network, "_hf_hook")
    assert prepared(backbone, device="meta", precision="bf16") is half
    assert prepared(backbone) is backbone  # on the CPU nothing is offloaded
    assert backbone.to("meta") is backbone


@pytest.mark.parametrize(
    ("how", "settings", "says"),
    [
        ("sequential", {"self_guidance": SelfGuidance(scale=1.0)}, "its network cannot be differentiated"),
        ("sequential", {"minority_prompt": MinorityPrompt()}, "its network cannot be differentiated"),
        ("model", {"self_guidance": SelfGuidance(scale=1.0, jacobian=False, space="image")}, "its decoder cannot"),
        ("model", {"jepa_guidance": JepaGuidanceSettings()}, "its decoder cannot"),
        ("model", {"engine": EngineSettings(compile=True)}, "leave backbone.offload or sampler.engine out"),
    ],
)
def test_what_needs_weights_to_stay_is_refused(how, settings, says):
    with pytest.raises(ValueError, match=says):
        check_backbone(open_backbone(how), SamplerSettings(**settings))


@pytest.mark.parametrize("how", ["model", "sequential"])
def test_jacobian_free_guidance_is_not(how):
    settings = SamplerSettings(self_guidance=SelfGuidance(scale=1.0, jacobian=False))

    check_backbone(open_backbone(how), settings)


def test_a_missing_accelerate_is_named_before_anything_is_read(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "accelerate" else find(name))

    with pytest.raises(BackboneError, match=r"backbone.offload needs accelerate.*minority-augment\[gpus\]") as error:
        load_text_to_image("nowhere", TextToImage(prompts=PROMPTS, offload="model"))

    assert "\n" not in str(error.value)
