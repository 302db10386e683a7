"""MinorityPrompt and CADS: what they do beyond the recordings (tests/minority/backbones/test_text_golden.py)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from minority.backbones.text.folder import TextToImage, load_text_to_image
from minority.backbones.text.prompts import Prompts
from minority.diffusion.chain import Chain
from minority.diffusion.noise import SampleNoise
from minority.guidance import check_combination
from minority.guidance.cads import Cads
from minority.guidance.classifier_free import ClassifierFree
from minority.guidance.minority_prompt import MinorityPrompt
from minority.guidance.prune_and_branch import PruneAndBranch
from minority.sampling.draw import SamplerSettings, draw_images
from minority.sampling.sampler import sample
from minority.solvers.ancestral import Ancestral
from minority.solvers.ddim import Ddim

pytest.importorskip("transformers")
GOLDEN = Path(__file__).parents[1] / "golden" / "t2i"
PROMPTS = Prompts(texts=(("a photo of a dog",), ("a chef in a white coat",)))


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def backbone(request):
    return load_text_to_image(GOLDEN / request.param, TextToImage(prompts=PROMPTS, size=16))


@pytest.fixture(scope="module")
def sd():
    return load_text_to_image(GOLDEN / "sd", TextToImage(prompts=PROMPTS, size=16))


def chain_of(backbone, *indices, steps="leading5"):
    chain = Chain(backbone.denoiser, backbone.schedule.respaced(steps), torch.zeros(len(indices), dtype=torch.int64))
    return chain, SampleNoise(0, indices, shape=backbone.state_shape)


def rarity(method, chain, noise, x_t, step):
    """The objective with the words as they are, over the noises that were learned on."""
    clips = chain.denoiser.encoders.clips(x_t.device)
    words = chain.kept.get("minority_prompt") or method.first_words(clips, len(x_t), noise)
    with torch.no_grad():
        embedding = chain.denoiser.encoders.embed(["a photo of a dog"] * len(x_t), words, position=method.position)
        draws = [
            method._rarity(x_t, step, embedding, chain, noise.perturbation(step, i)) for i in range(method.iterations)
        ]
    return torch.stack(draws).mean(dim=0)


@pytest.mark.parametrize("perturbation", [0.75, None])
def test_learned_words_make_the_clean_estimate_rarer(backbone, perturbation):
    method = MinorityPrompt(iterations=15, learning_rate=0.02, words=2, above=-1, perturbation=perturbation)
    chain, noise = chain_of(backbone, 7, 8)
    x_t = noise.start()
    before = rarity(method, chain, noise, x_t, step=2)

    method.condition(x_t, 2, chain, noise)

    assert (rarity(method, chain, noise, x_t, step=2) > before).all()
    assert chain.cost.backwards == 2 * 15
    assert chain.condition is not chain.given


def test_weights_stay_as_they_are_and_words_belong_to_their_sample(backbone):
    clips = backbone.denoiser.encoders.clips(torch.device("cpu"))
    tables = [clip.vocabulary.clone() for clip in clips]
    method = MinorityPrompt(iterations=2, above=-1)
    both, noise = chain_of(backbone, 7, 8)
    alone, own = chain_of(backbone, 8)

    method.condition(noise.start(), 4, both, noise)
    method.condition(own.start(), 4, alone, own)

    assert all(torch.equal(clip.vocabulary, table) for clip, table in zip(clips, tables, strict=True))
    for shared, single in zip(both.kept["minority_prompt"], alone.kept["minority_prompt"], strict=True):
        assert (shared[1:] - single).abs().max() < 1e-4
        assert (shared[0] - shared[1]).abs().max() > 1e-3


def test_images_do_not_depend_on_the_batch(sd):
    settings = SamplerSettings(
        steps="leading4",
        solver="ddim",
        classifier_free=ClassifierFree(scale=3.0),
        minority_prompt=MinorityPrompt(iterations=2, above=0.3, initial="word", word="cool"),
        cads=Cads(),
    )
    together, _ = draw_images(sd, seed=0, indices=[1, 2, 3], labels=[0, 1, 0], settings=settings)
    alone, _ = draw_images(sd, seed=0, indices=[2], labels=[1], settings=settings)
    assert np.abs(together[1].astype(int) - alone[0]).max() <= 1


def test_steps_between_guided_ones_keep_the_words_or_take_the_plain_prompt(sd):
    for plain_after in (False, True):
        method = MinorityPrompt(iterations=1, above=-1, interval=2, plain_after=plain_after)
        chain, noise = chain_of(sd, 7)
        method.condition(noise.start(), 4, chain, noise)
        learned = chain.condition
        method.condition(noise.start(), 3, chain, noise)
        assert chain.condition is (chain.given if plain_after else learned)


def test_it_stops_below_its_share_of_the_chain(sd):
    method = MinorityPrompt(iterations=1, above=0.5)
    chain, noise = chain_of(sd, 7)
    method.condition(noise.start(), 0, chain, noise)
    assert chain.condition is chain.given
    assert chain.cost.forwards == 0


@pytest.mark.parametrize("steps", ["leading10", "leading7", "trailing4", "late-leading10", "late-trailing4", 5])
@pytest.mark.parametrize("growing", [True, False])
def test_the_perturbed_level_is_a_trained_one_at_every_step(sd, steps, growing):
    # With the published loops the last step of the first spacing asks for one beyond the trained ones, and fails.
    schedule = sd.schedule.respaced(steps)
    method = MinorityPrompt(perturbation=None if growing else 0.75)
    told = []
    for step in range(schedule.num_steps - 1, -1, -1):
        levels, s = method._perturbed_level(step, schedule)
        told.append(int(levels.timesteps[s]))
        assert levels.abar[s] in sd.schedule.abar
    assert told == sorted(told)
    assert told == [750] * len(told) or growing


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"iterations": 0}, "iterations, .words and .interval must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"perturbation": 1.0}, "perturbation must lie in"),
        ({"initial": "word"}, "word is not set"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        MinorityPrompt(**settings)


def test_a_start_word_of_several_tokens_is_refused(sd):
    method = MinorityPrompt(above=-1, initial="word", word="extraordinary")
    chain, noise = chain_of(sd, 7)
    with pytest.raises(ValueError, match=r"the word 'extraordinary' is \d+ tokens here; choose a word of one token"):
        method.condition(noise.start(), 4, chain, noise)


def test_a_prompt_without_room_for_the_words_is_refused(tmp_path):
    full = load_text_to_image(GOLDEN / "sd", TextToImage(prompts=Prompts(texts=((" ".join(["dog"] * 13),),))))
    chain, noise = chain_of(full, 7)
    MinorityPrompt(iterations=1, above=-1).condition(noise.start(), 4, chain, noise)
    with pytest.raises(ValueError, match="has 13 tokens and 2 learnable ones, the text encoder takes 14; shorten it"):
        MinorityPrompt(iterations=1, above=-1, words=2).condition(noise.start(), 4, *chain_of(full, 7))


def test_backbones_without_prompts_are_refused(backbone, make_tiny_backbone):
    other = make_tiny_backbone()
    chain, noise = chain_of(other, 7, steps=4)
    for method, words in ((MinorityPrompt(above=-1), "is told no prompts"), (Cads(), "is told none")):
        with pytest.raises(ValueError, match=words):
            method.condition(noise.start(), 3, chain, noise)


def test_families_without_clip_are_refused(tiny_text_pipelines, tmp_path):
    folder = tiny_text_pipelines.save(tiny_text_pipelines.pixart(), tmp_path / "pixart")
    pixart = load_text_to_image(folder, TextToImage(prompts=PROMPTS))
    chain, noise = chain_of(pixart, 7)
    with pytest.raises(ValueError, match="needs a backbone with CLIP text encoders"):
        MinorityPrompt(above=-1).condition(noise.start(), 4, chain, noise)


class TestCads:
    def test_prompts_are_clear_at_the_end_and_noise_at_the_start(self):
        method = Cads(tau_1=0.4, tau_2=0.8)
        assert [method.share(step, 10) for step in (0, 3, 7, 9)] == [1, 1, 0, 0]
        assert method.share(5, 10) == pytest.approx(0.5)

    def test_a_noised_prompt_keeps_its_mean_and_deviation_where_rescaled(self, backbone):
        chain, noise = chain_of(backbone, 7, 8)
        plain = backbone.denoiser.prompts.look_up(chain.given, batch=2)
        Cads(noise_scale=0.5).condition(noise.start(), 4, chain, noise)
        for name, tensor in chain.condition.tensors.items():
            before = plain.tensors[name].flatten(1)
            assert (tensor.flatten(1) - before).abs().max() > 0.1
            assert torch.allclose(tensor.flatten(1).mean(dim=1), before.mean(dim=1), atol=1e-5)
            assert torch.allclose(tensor.flatten(1).std(dim=1), before.std(dim=1), rtol=1e-4)

    def test_noise_is_drawn_anew_from_the_clear_prompt_at_every_step(self, sd):
        chain, noise = chain_of(sd, 7)
        method = Cads(noise_scale=0.3, rescale=0.0)
        plain = sd.denoiser.prompts.look_up(chain.given, batch=1).tensors["text"]
        for step in (4, 3, 2, 1, 0):
            method.condition(noise.start(), step, chain, noise)
            g = method.share(step, 5)
            normal = noise.condition(step, 16, tuple(plain.shape[1:]))
            expected = g**0.5 * plain + 0.3 * (1 - g) ** 0.5 * normal
            assert torch.allclose(chain.condition.tensors["text"], expected, atol=1e-6)

    def test_it_noises_what_minority_prompt_learned(self, sd):
        chain, noise = chain_of(sd, 7)
        learned = MinorityPrompt(iterations=1, above=0.7)
        cads = Cads(noise_scale=0.3, rescale=0.0, tau_1=0.2, tau_2=0.5)
        for step in (4, 3, 2, 1, 0):
            learned.condition(noise.start(), step, chain, noise)
            if step == 4:
                words = chain.condition.tensors["text"]
            cads.condition(noise.start(), step, chain, noise)
        assert torch.equal(chain.condition.tensors["text"], words)

    def test_samples_of_one_prompt_differ_more(self, sd):
        schedule, noise = sd.schedule.respaced("leading10"), SampleNoise(0, range(16), shape=sd.state_shape)
        spread = []
        for methods in ([], [Cads(noise_scale=1.0, rescale=0.0, tau_1=0.1, tau_2=0.5)]):
            guidance = [ClassifierFree(scale=6.0), *methods]
            label = torch.zeros(16, dtype=torch.int64)
            x, cost = sample(
                sd.denoiser, schedule, noise, label=label, guidance=guidance, solver=Ddim(), space=sd.space
            )
            spread.append(x.std(dim=0).mean().item())
            assert cost.evaluations() == 20
        assert spread[1] > spread[0]

    def test_bad_settings_and_combinations_are_refused(self):
        with pytest.raises(ValueError, match="tau_1 < tau_2"):
            Cads(tau_1=0.9, tau_2=0.5)
        with pytest.raises(ValueError, match="must lie in"):
            Cads(rescale=2.0)
        with pytest.raises(ValueError, match="noised twice"):
            check_combination([Cads(), PruneAndBranch()], Ancestral())


def test_branches_go_on_with_the_words_of_their_parent(sd):
    chain, noise = chain_of(sd, 7, 8)
    MinorityPrompt(iterations=1, above=-1).condition(noise.start(), 4, chain, noise)
    text, words = chain.condition.tensors["text"], chain.kept["minority_prompt"][0]

    chain.follow(torch.tensor([1, 1]))

    assert torch.equal(chain.condition.tensors["text"][0], text[1])
    assert torch.equal(chain.kept["minority_prompt"][0][0], words[1])
