"""Text-to-image backbones against recordings of MinorityPrompt's published loops (see golden/t2i/README.md)."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from minority.backbones.text.folder import TextToImage, load_text_to_image
from minority.backbones.text.prompts import Prompts
from minority.diffusion.chain import Chain
from minority.guidance.cfg_plus_plus import CfgPlusPlus
from minority.guidance.classifier_free import ClassifierFree
from minority.guidance.minority_prompt import MinorityPrompt
from minority.sampling.sampler import sample
from minority.solvers.ddim import Ddim

pytest.importorskip("transformers")
GOLDEN = Path(__file__).parents[1] / "golden" / "t2i"
pytestmark = pytest.mark.usefixtures("plain_convolutions")
CASES = [
    "ddim_cfg",
    "ddim_cfgpp",
    "minority_prompt_static",
    "minority_prompt_dynamic",
    "sdxl_ddim_cfg",
    "sdxl_lightning_minority_prompt",
]
WITH_PROMPT = [name for name in CASES if "minority_prompt" in name]


class Recorded:
    """The noise of a case."""

    def __init__(self, tensors):
        self.tensors, rows = tensors, tensors.get("opt_rows")
        self.steps = len(tensors["timesteps"])
        self.guided = {} if rows is None else {self.steps - 1 - row: i for i, row in enumerate(rows.tolist())}

    def start(self):
        return self.tensors["x_T"]

    def perturbation(self, step, draw):
        return self.tensors["perturbation_noise"][self.guided[step], draw]


class Replayed(MinorityPrompt):
    """Starts from the recorded words where these were drawn, and writes down what it finds."""

    def first_words(self, clips, batch, noise):
        init = [noise.tensors[name] for name in ("token_init", "token_init_1", "token_init_2") if name in noise.tensors]
        recorded = [own.view(batch, -1, own.shape[-1]) for own in init]
        if self.initial == "word":
            for own, expected in zip(super().first_words(clips, batch, noise), recorded, strict=True):
                assert torch.equal(own, expected)
        return recorded

    def condition(self, x_t, step, chain, noise):
        if not hasattr(chain, "seen"):
            chain.seen = {"words": [], "text": []}
            SEEN.append(chain.seen)
        super().condition(x_t, step, chain, noise)
        chain.seen["words"].append([own.clone() for own in chain.kept.get("minority_prompt", [])])
        told = chain.condition
        table = chain.denoiser.prompts.table
        chain.seen["text"].append((table[told] if isinstance(told, torch.Tensor) else told).tensors)


SEEN = []


def read(name):
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        return json.loads(file.metadata()["config"]), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def opened(config):
    prompts = Prompts(texts=tuple((text,) for text in config["prompts"]), negative=config["negative_prompt"])
    return load_text_to_image(GOLDEN / config["pipeline"], TextToImage(prompts=prompts))


def methods_of(config):
    options = config["published"]
    scale = options["cfg_guidance"]
    guidance = [ClassifierFree(scale=scale) if config["renoise"] == "guided" else CfgPlusPlus(scale=scale)]
    if options["prompt_opt"]:
        guidance.append(
            Replayed(
                iterations=options["p_opt_iter"],
                learning_rate=options["p_opt_lr"],
                decay=options["lr_decay_rate"],
                words=options["num_opt_tokens"],
                position=options["placeholder_position"],
                initial="word" if options["init_type"] == "word" else "normal",
                word=options["init_word"],
                above=options["t_lo"],
                interval=options["inter_rate"],
                perturbation=None if options["dynamic_pr"] else options["p_ratio"],
                balance=options["sg_lambda"],
                plain_after=options["base_prompt_after_popt"],
            )
        )
    return guidance


def near(found, expected, relative=2e-5):
    assert (found - expected).abs().max() <= relative * expected.abs().max()


@pytest.mark.parametrize("name", CASES)
def test_a_recording_is_replayed(name):
    config, recorded = read(name)
    backbone = opened(config)
    spacing = "trailing" if "lightning" in config["published"]["method"] else "leading"
    schedule = backbone.schedule.respaced(f"late-{spacing}{config['published']['NFE']}")
    assert schedule.timesteps[::-1].tolist() == recorded["timesteps"].tolist()
    noise, arrivals = Recorded(recorded), []
    SEEN.clear()

    x, cost = sample(
        backbone.denoiser,
        schedule,
        noise,
        label=torch.arange(len(recorded["x_T"])),
        guidance=methods_of(config),
        solver=Ddim(clip_x0=False),
        space=backbone.space,
        on_step=arrivals.append,
    )

    for row, arrival in enumerate(arrivals):
        near(arrival.x0, recorded["x0_step"][row])
        if row + 1 < len(arrivals):
            near(arrival.x, recorded["x_step"][row + 1])
    images = (backbone.finish(x, seed=0, indices=[], label=None)[0] / 2 + 0.5).clamp(0, 1)
    near(images.detach(), recorded["image"])
    guided = len(recorded.get("opt_rows", ()))
    assert cost.evaluations() == 2 * len(arrivals) + 6 * guided * config["published"]["p_opt_iter"]


@pytest.mark.parametrize("name", WITH_PROMPT)
def test_the_learned_words_and_the_prompts_of_every_step_are_the_recorded_ones(name):
    test_a_recording_is_replayed(name)
    (seen,) = SEEN
    _, recorded = read(name)
    keys = [key for key in ("token_after", "token_after_1", "token_after_2") if key in recorded]

    for i, row in enumerate(recorded["opt_rows"].tolist()):
        for own, key in zip(seen["words"][row], keys, strict=True):
            assert (own.flatten(0, 1) - recorded[key][i, -1]).abs().max() <= 2e-5
    for row, told in enumerate(seen["text"]):
        near(told["text"], recorded["text_step"][row])
        if "pooled_step" in recorded:
            near(told["pooled"], recorded["pooled_step"][row][-1:])


@pytest.mark.parametrize("name", WITH_PROMPT)
def test_the_objective_and_its_gradient_are_the_recorded_ones(name):
    config, recorded = read(name)
    backbone, noise = opened(config), Recorded(recorded)
    method = methods_of(config)[1]
    spacing = "trailing" if "lightning" in config["published"]["method"] else "leading"
    schedule = backbone.schedule.respaced(f"late-{spacing}{config['published']['NFE']}")
    batch = len(recorded["x_T"])
    chain = Chain(backbone.denoiser, schedule, torch.arange(batch), space=backbone.space)
    texts = [backbone.denoiser.texts[i] for i in range(batch)]
    suffixes = [""] if "token_after" in recorded else ["_1", "_2"]

    for i, row in enumerate(recorded["opt_rows"].tolist()):
        step = len(recorded["timesteps"]) - 1 - row
        for draw in range(method.iterations):
            before = [
                recorded[f"token_after{s}"][i, draw - 1]
                if draw
                else (recorded[f"token_after{s}"][i - 1, -1] if i else recorded[f"token_init{s}"])
                for s in suffixes
            ]
            words = [own.view(batch, -1, own.shape[-1]).clone().requires_grad_(True) for own in before]
            embedding = backbone.denoiser.encoders.embed(texts, words, position=method.position)

            x_t = recorded["x_step"][row]
            loss = -method._rarity(x_t, step, embedding, chain, noise.perturbation(step, draw)).sum()
            gradients = torch.autograd.grad(loss, words)

            assert loss.item() == pytest.approx(recorded["loss"][i, draw].item(), rel=1e-5)
            for gradient, suffix in zip(gradients, suffixes, strict=True):
                expected = recorded[f"token_gradient{suffix}"]
                error = (gradient.flatten(0, 1) - expected[i, draw]).abs().max()
                assert error <= 1e-4 * expected[i].abs().max()


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_prompts_and_both_predictions_are_the_recorded_ones(name):
    config, recorded = read(name)
    backbone = opened(config)
    table = backbone.denoiser.prompts.table
    near(table.tensors["text"][:-1], recorded["text_base"])
    near(table.tensors["text"][-1:], recorded["text_uncond"][:1])
    if "pooled_base" in recorded:
        near(table.tensors["pooled"][:-1], recorded["pooled_base"])
        near(table.tensors["pooled"][-1:], recorded["pooled_uncond"])
    if name in WITH_PROMPT:
        return
    for row, timestep in enumerate(recorded["timesteps"].long().tolist()):
        x_t = recorded["x_step"][row]
        told = torch.full((len(x_t),), timestep)
        near(backbone.denoiser(x_t, told, torch.arange(len(x_t))).eps, recorded["eps_text"][row])
        near(backbone.denoiser(x_t, told, None).eps, recorded["eps_uncond"][row])
