"""Text-to-image models in miniature: trained, written, and opened by diffusers and by this project alike."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from minority.backbones import load_backbone
from minority.backbones.text.folder import TextToImage
from minority.backbones.text.prompts import Prompts
from minority.training.text.loop import CaptionedImages, train_text_model
from minority.training.text.networks import build_parts, build_tokenizer, save_parts
from minority.training.text.settings import TextModelSettings

pytest.importorskip("transformers")
SETTINGS = TextModelSettings(
    autoencoder_widths=(8, 8),
    autoencoder_steps=3,
    widths=(16, 16),
    text_width=16,
    text_layers=1,
    text_length=8,
    steps=4,
    batch_size=2,
    checkpoint_every=2,
)
WORDS = ["red", "blue", "three", "a"]


def data():
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    return CaptionedImages(images, [("a red three", "red three"), ("blue",), ("red",), ("a blue three",)])


def train(folder, settings=SETTINGS, **more):
    parts = build_parts(WORDS, settings, size=16)
    return train_text_model(parts, more.pop("data", data()), settings=settings, folder=folder, **more)


def weights(parts):
    return torch.cat([value.flatten() for value in [*parts.prompted().parameters(), *parts.autoencoder.parameters()]])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train(tmp_path_factory.mktemp("text"))


def test_the_folder_is_laid_out_as_stable_diffusion_and_draws_as_diffusers_does(trained, tmp_path):
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    folder = save_parts(tmp_path / "model", train(tmp_path / "again"), card="# card\n")

    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {"tokenizer/vocab.json", "tokenizer/merges.txt", "text_encoder/model.safetensors", "README.md"} < names
    assert json.loads((folder / "model_index.json").read_text())["_class_name"] == "StableDiffusionPipeline"
    backbone = load_backbone(folder, text=TextToImage(prompts=Prompts(texts=(("a red three",),))))
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    x = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        text = pipeline.encode_prompt(["a red three"], "cpu", 1, False)[0]
        theirs = pipeline.unet(x, torch.tensor([500]), encoder_hidden_states=text).sample
        ours = backbone.in_precision("fp32").denoiser(x, torch.tensor([500]), torch.tensor([0])).eps
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    latents = backbone.encode(torch.from_numpy(data().images).permute(0, 3, 1, 2) / 127.5 - 1)
    assert 0.5 < float(latents.std()) < 2


def test_a_run_that_dies_in_either_training_goes_on_to_the_same_weights(tmp_path, trained):
    for name in ("autoencoder", "captions"):

        def die(training, progress, name=name):
            if training == name and progress.step == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, on_progress=die)
    assert torch.equal(weights(train(tmp_path)), weights(trained))
    with pytest.raises(ValueError, match="belongs to a training run with other settings"):
        train(tmp_path, replace(SETTINGS, seed=1))


def test_training_changes_weights_and_halves_no_caption(trained, tmp_path):
    assert not torch.equal(weights(trained), weights(build_parts(WORDS, SETTINGS, size=16)))
    long = CaptionedImages(data().images, [("a red three a red three a red",)] * 4)
    with pytest.raises(ValueError, match="has 10 tokens, text_length takes 8"):
        train(tmp_path, data=long)


def test_listed_words_are_one_token_and_all_others_are_spelled():
    tokenizer = build_tokenizer([*WORDS, "threefold", "redder"], length=12)
    for word in [*WORDS, "threefold", "redder"]:
        assert len(tokenizer.tokenize(word)) == 1
    assert len(tokenizer.tokenize("zebra")) == 5
    assert tokenizer.unk_token_id not in tokenizer("zebra é 7").input_ids[1:-1]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"widths": (16, 20)}, "multiples of 16"),
        ({"autoencoder_widths": ()}, "multiples of 8"),
        ({"steps": 0}, "at least 1"),
        ({"caption_dropout": 1.0}, "in \\[0, 1\\)"),
        ({"learning_rate": 0.0}, "greater than 0"),
        ({"text_length": 2}, "at least 3 tokens"),
    ],
)
def test_impossible_settings_are_refused(changes, reason):
    with pytest.raises(ValueError, match=reason):
        replace(SETTINGS, **changes)


def test_images_that_cannot_be_halved_are_refused():
    with pytest.raises(ValueError, match="images of 30 pixels cannot be halved"):
        build_parts(WORDS, SETTINGS, size=30)


def test_every_image_needs_a_caption():
    with pytest.raises(ValueError, match="need one caption each"):
        CaptionedImages(data().images, [("a",), (), ("a",), ("a",)])
