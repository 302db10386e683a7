"""What a text-to-image folder becomes: prompts, sizes, precision, and what is refused."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from minority.backbones import BackboneError, load_backbone
from minority.backbones.fitted import fitted
from minority.backbones.text.folder import TextToImage, load_text_to_image
from minority.backbones.text.prompts import Prompts
from minority.guidance.boost_and_skip import BoostAndSkip
from minority.guidance.cads import Cads
from minority.guidance.cfg_plus_plus import CfgPlusPlus
from minority.guidance.classifier_free import ClassifierFree
from minority.guidance.minority_prompt import MinorityPrompt
from minority.guidance.prune_and_branch import PruneAndBranch
from minority.guidance.self_guidance import SelfGuidance
from minority.sampling.draw import SamplerSettings, ScoreSettings, draw, draw_images, score_images
from minority.sampling.edit import edit_images

pytest.importorskip("transformers")
GOLDEN = Path(__file__).parents[1] / "golden" / "t2i"
PROMPTS = Prompts(texts=(("a photo of a dog", "old dog"), ("a chef in a white coat",)), negative="rare")


@pytest.fixture(scope="module")
def backbone():
    return load_text_to_image(GOLDEN / "sd", TextToImage(prompts=PROMPTS, size=16))


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(GOLDEN / "sd", tmp_path / "sd"))


def test_prompts_are_chosen_by_seed_index_and_label_alone():
    many = range(400)
    rows = PROMPTS.rows(3, many, [0] * 400)

    assert rows == [PROMPTS.rows(3, [i], [0])[0] for i in many]
    assert 150 < sum(rows) < 250
    assert rows != PROMPTS.rows(4, many, [0] * 400)
    assert PROMPTS.rows(3, [5], [1]) == [2]
    assert PROMPTS.rows(3, [5], [2]) == [3]
    assert PROMPTS.chosen(3, [5, 5], [1, 2]) == ["a chef in a white coat", "rare"]


def test_a_label_without_a_prompt_is_refused():
    with pytest.raises(ValueError, match="label 1 has no prompt"):
        Prompts(texts=(("a",), ()))


def test_a_sample_is_the_same_in_any_batch_and_from_the_hub_ids_door(backbone):
    settings = SamplerSettings(steps="leading5", solver="ddim", classifier_free=ClassifierFree(scale=4.0))
    labels = [0, 1, 0, 0]
    together, _ = draw_images(backbone, seed=1, indices=range(4), labels=labels, settings=settings)

    again = load_backbone(GOLDEN / "sd", text=TextToImage(prompts=PROMPTS, size=16))
    alone = [draw_images(again, seed=1, indices=[i], labels=[labels[i]], settings=settings)[0][0] for i in range(4)]

    assert np.abs(together.astype(int) - np.stack(alone)).max() <= 1
    assert together.shape == (4, 16, 16, 3)
    assert again.identity == backbone.identity


def test_text_encoders_are_not_part_of_the_network_and_the_negative_prompt_is_no_label(backbone):
    names = [name for name, _ in backbone.denoiser.named_parameters()]
    assert names
    assert all(name.startswith("network.") for name in names)
    assert backbone.num_classes == 2
    x, told = torch.randn(1, *backbone.state_shape), torch.tensor([500])
    free = backbone.denoiser(x, told, None).eps
    assert torch.equal(free, backbone.denoiser(x, told, torch.tensor([3])).eps)


def test_a_folder_with_variants_alone_is_read_as_the_plain_one(backbone, folder):
    for part in ("unet", "vae", "text_encoder"):
        for path in (folder / part).glob("*.safetensors"):
            path.rename(path.with_name(f"{path.stem}.fp16.safetensors"))

    read = load_text_to_image(folder, TextToImage(prompts=PROMPTS, size=16))

    drawn, expected = (
        draw_images(source, seed=4, indices=[0], labels=[1], settings=SamplerSettings(steps=3))[0]
        for source in (read, backbone)
    )
    assert np.array_equal(drawn, expected)
    # The network keeps its precision; the autoencoder is raised.
    assert "weights: unet/diffusion_pytorch_model.fp16.safetensors, variant fp16" in read.facts
    assert "weights: vae/diffusion_pytorch_model.fp16.safetensors, variant fp16 raised to fp32" in read.facts


def test_identity_changes_with_prompts_and_size():
    def identity(prompts=PROMPTS, **changes):
        return load_text_to_image(GOLDEN / "sd", TextToImage(prompts=prompts, **changes)).identity

    other = Prompts(texts=PROMPTS.texts, negative="old")
    assert len({identity(), identity(other), identity(size=16)}) == 3


def test_weights_keep_the_precision_they_are_stored_in(folder):
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in load_file(file).items()}, file)
    half = load_text_to_image(folder, TextToImage(prompts=PROMPTS))

    assert {parameter.dtype for parameter in half.denoiser.parameters()} == {torch.bfloat16}
    assert half.in_precision("bf16") is half
    eps = half.denoiser(torch.randn(1, *half.state_shape), torch.tensor([500]), torch.tensor([0])).eps
    assert eps.dtype == torch.float32
    assert torch.isfinite(eps).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            TextToImage(prompts=Prompts(texts=((" ".join(["dog"] * 15),),))),
            "has 17 tokens, tokenizer takes 16 at most; shorten it",
        ),
        (TextToImage(prompts=Prompts(texts=(("a",),), negative="dog " * 20)), "has 22 tokens, tokenizer takes 16"),
        (TextToImage(prompts=PROMPTS, size=31), "a multiple of 2 pixels, not of 31"),
    ],
)
def test_prompts_and_sizes_that_do_not_fit_are_refused(settings, words):
    with pytest.raises(BackboneError) as error:
        load_text_to_image(GOLDEN / "sd", settings)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_text_encoder_is_named(folder):
    shutil.rmtree(folder / "text_encoder")
    with pytest.raises(BackboneError, match="text_encoder is missing; prompts cannot be embedded without it"):
        load_text_to_image(folder, TextToImage(prompts=PROMPTS))


def test_missing_transformers_is_told_with_the_extra(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "transformers" else found(name))
    with pytest.raises(BackboneError, match=r"need transformers; install it: pip install 'minority-augment\[t2i\]'"):
        load_text_to_image(GOLDEN / "sd", TextToImage(prompts=PROMPTS))


@pytest.mark.parametrize(
    ("part", "changes", "words"),
    [
        ("unet", {"in_channels": 9}, "it sees more than the latent"),
        ("unet", {"addition_embed_type": "image"}, "it is told more than the prompt"),
        ("vae", {"latents_mean": [0, 0, 0, 0]}, "scales every channel on its own"),
        ("vae", {"_class_name": "AutoencoderTiny"}, "it must be AutoencoderKL, VQModel or AutoencoderDC"),
        ("unet", {"cross_attention_dim": 48}, "does not fit the config.json beside it"),
    ],
)
def test_other_networks_are_refused(folder, part, changes, words):
    file = folder / part / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(BackboneError, match=words):
        load_text_to_image(folder, TextToImage(prompts=PROMPTS))


def test_unknown_pipelines_and_single_files_are_refused_with_the_way_out(folder):
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": "KolorsPipeline"}))
    with pytest.raises(BackboneError, match=r"is no text-to-image pipeline that is supported.*docs/backbones.md"):
        load_backbone(folder, text=TextToImage(prompts=PROMPTS))
    file = GOLDEN / "sd" / "unet" / "diffusion_pytorch_model.safetensors"
    with pytest.raises(BackboneError, match=r"is a single file.*from_single_file"):
        load_backbone(file, text=TextToImage(prompts=PROMPTS))


@pytest.fixture(scope="module")
def lightning():
    return load_text_to_image(GOLDEN / "sdxl", TextToImage(prompts=PROMPTS, distilled=True))


class TestDistilled:
    @pytest.mark.parametrize(
        "settings", [{"classifier_free": ClassifierFree(scale=5.0)}, {"cfg_plus_plus": CfgPlusPlus(), "solver": "ddim"}]
    )
    def test_classifier_free_guidance_is_refused(self, lightning, settings):
        chosen = SamplerSettings(**settings)
        image = np.zeros((1, 32, 32, 3), dtype=np.uint8)
        with pytest.raises(ValueError, match=r"has its guidance distilled in \(its config says so"):
            draw(lightning, seed=0, indices=[0], labels=[0], settings=chosen)
        with pytest.raises(ValueError, match="has its guidance distilled in"):
            edit_images(lightning, image, seed=0, indices=[0], labels=[0], settings=chosen, fraction=0.5)

    def test_a_scale_of_one_changes_nothing_and_is_allowed(self, lightning):
        plain = SamplerSettings(steps="trailing4", solver="ddim")
        one = SamplerSettings(steps="trailing4", solver="ddim", classifier_free=ClassifierFree(scale=1.0))
        images = [draw(lightning, seed=0, indices=[0], labels=[1], settings=chosen).images for chosen in (plain, one)]
        assert np.abs(images[0].astype(int) - images[1]).max() <= 1

    def test_there_is_a_minority_score_and_no_bound(self, lightning):
        images = np.zeros((2, 32, 32, 3), dtype=np.uint8)
        settings = ScoreSettings(draws=1, elbo_steps=2)
        scores = score_images(lightning, images, seed=0, indices=[0, 1], labels=[0, 1], settings=settings)
        assert np.isfinite(scores.minority_score).all()
        assert np.isnan(scores.negative_elbo).all()


def test_a_scheduler_of_a_distilled_model_says_so(folder):
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"_class_name": "TCDScheduler"}))
    found = load_text_to_image(folder, TextToImage(prompts=PROMPTS))
    assert found.distilled == "its scheduler is a TCDScheduler"


class TestFitted:
    def test_grey_and_small_images_are_given_and_taken(self, backbone):
        small = fitted(backbone, (1, 8, 8))
        states = torch.randn(3, *backbone.state_shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            images, _ = small.finish(states, seed=0, indices=range(3), label=None)
            whole, _ = backbone.finish(states, seed=0, indices=range(3), label=None)
            again = small.encode(images)

        assert images.shape == (3, 1, 8, 8)
        assert again.shape == states.shape
        assert small.image_shape == (1, 8, 8)
        assert not small.space.discretised
        grey = (whole.clamp(-1, 1) * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(dim=1)
        assert images.mean(dim=(1, 2, 3)).tolist() == pytest.approx(grey.mean(dim=(1, 2)).tolist(), abs=0.02)

    def test_a_flat_image_stays_flat(self, backbone):
        small = fitted(backbone, (3, 28, 28))
        flat = torch.full((1, 3, 28, 28), 0.25)
        with torch.no_grad():
            assert torch.allclose(small.encode(flat), backbone.encode(torch.full((1, 3, 16, 16), 0.25)), atol=1e-5)

    def test_gradients_pass(self, backbone):
        states = torch.randn(1, *backbone.state_shape, requires_grad=True)
        fitted(backbone, (1, 8, 8)).space.to_images(states).sum().backward()
        assert states.grad.abs().max() > 0

    def test_distortion_other_channels_and_pixel_backbones_are_refused(self, backbone, make_tiny_backbone):
        with pytest.raises(BackboneError, match="8x16 would distort"):
            fitted(backbone, (3, 8, 16))
        with pytest.raises(BackboneError, match="must be grey or of 3 colours"):
            fitted(backbone, (5, 8, 8))
        with pytest.raises(BackboneError, match="draws images themselves"):
            fitted(make_tiny_backbone(), (1, 16, 16))


@pytest.mark.parametrize(
    "settings",
    [
        SamplerSettings(steps=6, self_guidance=SelfGuidance(scale=1.0, interval=2)),
        SamplerSettings(steps=6, self_guidance=SelfGuidance(scale=1.0, interval=2, space="image")),
        SamplerSettings(steps=6, self_guidance=SelfGuidance(scale=1.0, interval=2, jacobian=False)),
        SamplerSettings(steps=6, boost_and_skip=BoostAndSkip(boost=2.0, skip=0.2)),
        SamplerSettings(steps=6, prune_and_branch=PruneAndBranch(particle_group=2, keep=1)),
        SamplerSettings(steps=6, solver="ddim", cfg_plus_plus=CfgPlusPlus(scale=0.5), cads=Cads()),
        SamplerSettings(
            steps="leading4",
            solver="ddim",
            classifier_free=ClassifierFree(scale=4.0),
            cads=Cads(),
            minority_prompt=MinorityPrompt(iterations=1, above=0.2),
            self_guidance=SelfGuidance(scale=1.0, interval=1),
        ),
    ],
)
def test_every_method_draws_on_it_at_the_sets_size(backbone, settings):
    small = fitted(backbone, (1, 8, 8))
    drawn = draw(small, seed=0, indices=range(4), labels=[0, 0, 1, 1], settings=settings)
    plain = draw(small, seed=0, indices=range(4), labels=[0, 0, 1, 1], settings=settings.plain())
    assert drawn.images.shape == (4, 8, 8, 1)
    assert (drawn.images != plain.images).any()


def test_an_image_is_edited_into_another_groups_prompt(backbone):
    images = np.full((1, 16, 16, 3), 128, dtype=np.uint8)
    settings = SamplerSettings(steps="leading10", solver="ddim", classifier_free=ClassifierFree(scale=6.0))
    made = [
        edit_images(backbone, images, seed=0, indices=[0], labels=[label], settings=settings, fraction=0.8)[0]
        for label in (0, 1)
    ]
    assert (made[0] != made[1]).any()


def test_everything_else_works_without_transformers(tiny_backbone):
    code = f"""
import sys
sys.modules["transformers"] = sys.modules["peft"] = None
from minority.backbones import BackboneError, load_backbone
from minority.backbones.text.folder import TextToImage
from minority.backbones.text.prompts import Prompts
import minority.sampling.draw, tasks.inputs.workspace
print(load_backbone({str(tiny_backbone)!r}).image_shape)
try:
    load_backbone({str(GOLDEN / "sd")!r}, text=TextToImage(prompts=Prompts(texts=(("a dog",),))))
except BackboneError as error:
    print(error)
"""
    root = Path(__file__).parents[3]
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)

    shape, message = ran.stdout.splitlines()
    assert shape == "(1, 8, 8)"
    assert "pip install 'minority-augment[t2i]'" in message
