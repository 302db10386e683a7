"""LoRA and new words learned on tiny pipelines: what is written is what was trained, and a killed run goes on to it."""

import os
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from minority.backbones import load_backbone
from minority.backbones.fitted import fitted
from minority.backbones.text.adapters import AdapterSettings
from minority.backbones.text.folder import TextToImage
from minority.backbones.text.prompts import Prompts
from minority.training.text.adaptation import adapt, words_in
from minority.training.text.adaptation_settings import AdaptationSettings
from minority.training.text.adapter_files import save_adapted
from minority.training.text.loop import CaptionedImages

pytest.importorskip("transformers")
pytest.importorskip("peft")
GOLDEN = Path(__file__).parents[1] / "golden" / "t2i"
PROMPTS = Prompts(texts=(("a photo of <c>",), ("a chef",)))
SETTINGS = AdaptationSettings(
    rank=2,
    alpha=4,
    vectors=2,
    start_word="cat",
    steps=5,
    batch_size=2,
    learning_rate=1e-2,
    word_learning_rate=1e-2,
    warmup=1,
    checkpoint_every=2,
    look_every=None,
)


def data():
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), dtype=np.uint8)
    return CaptionedImages(images, [("a photo of <c>", "<c>")] * 3 + [("a chef",)] * 3)


def opened(folder="sd", *adapters, prompts=PROMPTS):
    backbone = load_backbone(GOLDEN / folder, text=TextToImage(prompts=prompts, adapters=adapters))
    return fitted(backbone, (1, 8, 8))


def learn(checkpoint, folder="sd", settings=SETTINGS, **more):
    backbone = opened(folder)
    learned = adapt(
        backbone,
        backbone.denoiser.encoders.load(),
        more.pop("data", data()),
        settings=settings,
        checkpoint=checkpoint,
        **more,
    )
    return backbone, learned


def flat(learned):
    return torch.cat(
        [*(v.flatten() for v in learned.lora.values()), *(v.flatten() for w in learned.words.values() for v in w)]
    )


def answer(backbone):
    x = torch.randn((2, *backbone.state_shape), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return backbone.denoiser(x, torch.tensor([400, 300]), torch.tensor([0, 1])).eps


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return learn(tmp_path_factory.mktemp("adapt") / "state.pt")[1]


@pytest.mark.parametrize("folder", ["sd", "sdxl"])
def test_what_is_written_is_what_was_trained(folder, tmp_path):
    looks = []
    _, learned = learn(
        tmp_path / "state.pt",
        folder,
        replace(SETTINGS, look_every=5),
        on_evaluation=lambda step, b: looks.append((step, answer(b))),
    )
    save_adapted(tmp_path / "adapter", learned, part="unet")

    again = opened(folder, AdapterSettings(path=tmp_path / "adapter"))

    theirs, plain = answer(again), answer(opened(folder))
    assert [step for step, _ in looks] == [5]
    assert float((looks[0][1] - theirs).abs().max() / theirs.abs().max()) < 1e-5
    assert float((plain - theirs).abs().max()) > 0.05
    assert any("scale: 2 (alpha / rank of the file's metadata)" in line for line in again.facts)
    assert any("the word <c> of 2 tokens" in line for line in again.facts)


def test_diffusers_reads_what_is_written(tmp_path, undisturbed):
    from diffusers import StableDiffusionPipeline

    save_adapted(tmp_path, undisturbed, part="unet")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = StableDiffusionPipeline.from_pretrained(GOLDEN / "sd")
        pipeline.load_lora_weights(tmp_path)
        pipeline.load_textual_inversion(load_file(tmp_path / "learned_embeds.safetensors"))
    x = torch.randn((2, 4, 16, 16), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        text = pipeline.encode_prompt(["a photo of <c>", "a chef"], "cpu", 1, False)[0]
        theirs = pipeline.unet(x, torch.tensor([400, 300]), encoder_hidden_states=text).sample
    ours = answer(opened("sd", AdapterSettings(path=tmp_path)))
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-5


VICTIM = """
import sys
sys.path.insert(0, sys.argv[1])
import test_adaptation
test_adaptation.learn(test_adaptation.Path(sys.argv[2]), on_progress=lambda progress: print(progress.step, flush=True))
"""


@pytest.mark.slow  # a process of its own imports everything anew
def test_a_process_killed_with_signal_9_goes_on_to_the_same_weights(tmp_path, undisturbed, request):
    process = subprocess.Popen(
        [sys.executable, "-c", VICTIM, str(request.path.parent), str(tmp_path / "state.pt")],
        cwd=request.config.rootpath,
        env={**os.environ, "PYTHONPATH": str(request.config.rootpath)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert next(line for line in process.stdout if int(line) >= 3)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    steps = []

    _, learned = learn(tmp_path / "state.pt", on_progress=lambda progress: steps.append(progress.step))

    assert steps[0] == 3
    assert torch.equal(flat(learned), flat(undisturbed))


def test_a_run_that_dies_goes_on_to_the_same_weights(tmp_path, undisturbed):
    def die(progress):
        if progress.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path / "state.pt", on_progress=die)
    steps = []
    _, learned = learn(tmp_path / "state.pt", on_progress=lambda progress: steps.append(progress.step))

    assert steps == [3, 4, 5]
    assert torch.equal(flat(learned), flat(undisturbed))
    with pytest.raises(ValueError, match="belongs to a training run with other settings"):
        learn(tmp_path / "state.pt", settings=replace(SETTINGS, seed=1))


def test_only_what_is_asked_for_is_learned(tmp_path):
    plain = CaptionedImages(data().images, [("a chef",)] * 6)
    _, low_rank = learn(tmp_path / "a.pt", settings=replace(SETTINGS, steps=1), data=plain)
    _, words = learn(tmp_path / "b.pt", settings=replace(SETTINGS, steps=1, rank=0))

    assert low_rank.words == {}
    assert len(low_rank.lora) > 0
    assert words.lora == {}
    assert list(words.words) == words_in(data().captions) == ["<c>"]
    with pytest.raises(ValueError, match="nothing is learned"):
        learn(tmp_path / "c.pt", settings=replace(SETTINGS, rank=0), data=plain)


def test_a_start_word_of_several_tokens_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'dermatofibroma' is \d+ tokens here; choose a word of one token"):
        learn(tmp_path / "a.pt", settings=replace(SETTINGS, start_word="dermatofibroma"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rank": -1}, "rank must be at least 0"),
        ({"alpha": 0}, "alpha must be greater"),
        ({"caption_dropout": 1}, "in"),
    ],
)
def test_impossible_settings_are_refused(changes, reason):
    with pytest.raises(ValueError, match=reason):
        replace(SETTINGS, **changes)
