"""Adapting a text-to-image model to images: low-rank adapters of its network, and new words of its prompts.

LoRA (Hu et al. 2021) by peft, words as in textual inversion (Gal et al. 2022), learned together by the model's own
denoising loss. Every draw is a function of (seed, step), so a killed run goes on from its last checkpoint to the same
weights.

Shapes: B images a batch, C channels, H x W pixels; n vectors a word of D features; images are in [-1, 1].
"""

import hashlib
import importlib.util
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from minority.backbones.backbone import Backbone
from minority.backbones.text.denoiser import FlowTextDenoiser, PromptTable, TextDenoiser, table_of
from minority.diffusion.condition import Embedding
from minority.runtime.image_arrays import content_key
from minority.training.checkpoint import read_checkpoint, write_checkpoint
from minority.training.loop import PROGRESS_REPORTS, Progress
from minority.training.text.adaptation_settings import AdaptationSettings
from minority.training.text.adapter_files import Adapted
from minority.training.text.loop import CaptionedImages, hash_of
from minority.training.text.new_words import add_learnable

#: A new word in a caption.
WORD = re.compile(r"<[^<>]+>")
_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")


def words_in(captions: Sequence[Sequence[str]]) -> list[str]:
    """The new words of captions: whatever stands in angle brackets, such as <three>."""
    return sorted({word for texts in captions for text in texts for word in WORD.findall(text)})


def adapt(
    backbone: Backbone,
    parts: Any,
    data: CaptionedImages,
    *,
    settings: AdaptationSettings,
    checkpoint: Path,
    on_progress: Callable[[Progress], None] | None = None,
    on_evaluation: Callable[[int, Backbone], None] | None = None,
) -> Adapted:
    """Learn adapters and words; the backbone's own network is given the adapters in place.

    Args:
        backbone: A text-to-image one on its device and in the precision to train in, fitted to the images.
        parts: Its text encoders and tokenizers, which are given the new words in place.
        data: Images of the set, and their captions.
        settings: See `AdaptationSettings`.
        checkpoint: File that receives the state, and from which a killed run goes on.
        on_progress: Called about a hundred times.
        on_evaluation: Called with the steps done and the backbone as it draws then; its prompts are those it came with.

    Raises:
        ValueError: There is nothing to learn, new words have no encoder to go into, a caption is too long, the start
            word is not one token, the checkpoint belongs to another run, or the loss stops being finite.
    """
    run = _Run(backbone, parts, data, settings)
    first = run.load(checkpoint) if checkpoint.exists() else 0
    started, losses = time.monotonic(), []
    for step in range(first, settings.steps):
        losses.append(run.step(step))
        done = step + 1
        last = done == settings.steps
        if on_progress is not None and (done % max(1, settings.steps // PROGRESS_REPORTS) == 0 or last):
            left = (time.monotonic() - started) / (done - first) * (settings.steps - done)
            on_progress(Progress(done, settings.steps, float(np.mean(losses)), seconds_left=left))
            losses = []
        if on_evaluation is not None and settings.look_every is not None and (done % settings.look_every == 0 or last):
            on_evaluation(done, run.as_it_draws())
        if done % settings.checkpoint_every == 0 or last:
            run.save(checkpoint, done)
    return run.learned()


class _Run:
    """The network with its adapters, the encoders with new words, and the optimiser of both."""

    def __init__(self, backbone: Backbone, parts: Any, data: CaptionedImages, settings: AdaptationSettings) -> None:
        if not isinstance(backbone.denoiser, TextDenoiser | FlowTextDenoiser):
            raise ValueError(f"backbone {backbone.name} takes no prompts, so it cannot be adapted.")
        self._backbone, self._denoiser, self._parts = backbone, backbone.denoiser, parts
        self._data, self._settings, self._family = data, settings, backbone.denoiser.family
        self._words = words_in(data.captions)
        if not settings.rank and not self._words:
            raise ValueError("nothing is learned: rank is 0, and no caption has a new word, such as <three>.")
        device = next(self._denoiser.parameters()).device
        self._device, self._lora = device, {}
        if settings.rank:
            self._lora = add_low_rank(self._denoiser, settings)
        self._new, self._rows = add_learnable(
            parts, self._family, self._words, start_word=settings.start_word, vectors=settings.vectors, device=device
        )
        groups = [
            {"params": list(self._lora.values()), "base": settings.learning_rate},
            {"params": self._rows, "base": settings.word_learning_rate, "weight_decay": 0.0},
        ]
        self._optimiser = torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=1e-2)
        texts = {text for texts in data.captions for text in texts}
        self._family.check(parts, [self._tokens_of(text) for text in sorted(texts)])
        self._fixed: dict[str, Embedding] = {}
        with torch.no_grad():
            self._empty = self._family.embed_negative(parts, backbone.prompts.negative if backbone.prompts else None)
        self._identity = _identity(backbone, data, settings)

    def step(self, step: int) -> float:
        """One optimiser step. Returns the loss."""
        settings = self._settings
        generator = torch.Generator().manual_seed(hash_of(settings.seed, "adapt", step))
        loss = self._loss(generator)
        if not torch.isfinite(loss):
            raise ValueError(f"the loss is {float(loss.detach())} at step {step}; lower learning_rate.")
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([*self._lora.values(), *self._rows], 1.0)
        warm = min(1.0, (step + 1) / max(1, settings.warmup))
        for group in self._optimiser.param_groups:
            group["lr"] = group["base"] * warm * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        self._optimiser.step()
        return float(loss.detach())

    def _loss(self, generator: torch.Generator) -> Tensor:
        size, schedule, device = self._settings.batch_size, self._backbone.schedule, self._device
        chosen = torch.randint(len(self._data.images), (size,), generator=generator)
        images = torch.from_numpy(self._data.images[chosen.numpy()]).permute(0, 3, 1, 2).float() / 127.5 - 1
        flipped = torch.rand(size, generator=generator) < 0.5 if self._settings.flip else torch.zeros(size).bool()
        images = torch.where(flipped.view(-1, 1, 1, 1), images.flip(-1), images)
        which, left_out = torch.rand(size, generator=generator), torch.rand(size, generator=generator)
        steps = torch.randint(schedule.num_steps, (size,), generator=generator)
        with torch.no_grad():
            x_0 = self._backbone.encode(images.to(device))
        eps = torch.randn(x_0.shape, generator=generator).to(device)
        abar = torch.from_numpy(schedule.abar)[steps].view(-1, 1, 1, 1).to(device)
        x_t = (abar.sqrt() * x_0 + (1 - abar).sqrt() * eps).float()
        captions = [self._data.captions[int(index)] for index in chosen]
        texts = [texts[int(share * len(texts))] for texts, share in zip(captions, which.tolist(), strict=True)]
        dropped = left_out < self._settings.caption_dropout
        rows = [
            self._empty if drop else self._embedded(text) for text, drop in zip(texts, dropped.tolist(), strict=True)
        ]
        timesteps = torch.from_numpy(schedule.timesteps)[steps].to(device)
        said = self._denoiser(x_t, timesteps, table_of(rows).to(device))
        if isinstance(self._denoiser, FlowTextDenoiser):  # its network predicts the velocity
            assert said.x0_hat is not None, "flows give their clean estimate"
            return functional.mse_loss(said.eps - said.x0_hat, eps - x_0)
        return functional.mse_loss(said.eps, eps)

    def _embedded(self, text: str) -> Embedding:
        if text not in self._fixed:
            row = self._family.embed(self._parts, [self._tokens_of(text)])
            if self._words:
                return row
            self._fixed[text] = row  # nothing of it changes
        return self._fixed[text]

    def as_it_draws(self) -> Backbone:
        """The backbone with its own prompts, embedded as the words stand now."""
        prompts = self._backbone.prompts
        assert prompts is not None, "a text-to-image backbone has them"
        with torch.no_grad():
            rows = [self._embedded(text) for text in prompts.flat]
            self._denoiser.prompts = PromptTable(table_of([*rows, self._empty])).to(self._device)
        return self._backbone

    def _tokens_of(self, text: str) -> str:
        for word in self._new:
            text = word.expand(text)
        return text

    def save(self, path: Path, done: int) -> None:
        """Write the state after so many steps."""
        lora = {name: value.detach() for name, value in self._lora.items()}
        state = {"lora": lora, "rows": [row.detach() for row in self._rows], "step": done}
        write_checkpoint(path, state | {"optimiser": self._optimiser.state_dict(), "identity": self._identity})

    def load(self, path: Path) -> int:
        """Take over the state of a run that was killed. Returns the steps done."""
        state = read_checkpoint(path, identity=self._identity)
        with torch.no_grad():
            for name, value in state["lora"].items():
                self._lora[name].copy_(value)
            for row, value in zip(self._rows, state["rows"], strict=True):
                row.copy_(value)
        self._optimiser.load_state_dict(state["optimiser"])
        return int(state["step"])

    def learned(self) -> Adapted:
        """What was learned, on the CPU."""
        count = self._settings.vectors
        words = {
            word: tuple(row.detach().cpu()[i * count : (i + 1) * count].clone() for row in self._rows)
            for i, word in enumerate(self._words)
        }
        if not self._lora:
            return Adapted({}, None, words)
        from peft import get_peft_model_state_dict

        network = trained_network(self._denoiser)
        state = {name: value.detach().cpu().clone() for name, value in get_peft_model_state_dict(network).items()}
        return Adapted(state, network.peft_config["default"].to_dict(), words)


def trained_network(denoiser: TextDenoiser | FlowTextDenoiser) -> Any:
    """The network that adapters belong to: what the family wrapped, or the network itself."""
    network: Any = denoiser.network
    for name in ("unet", "transformer"):
        network = getattr(network, name, network)
    return network


def add_low_rank(denoiser: TextDenoiser | FlowTextDenoiser, settings: AdaptationSettings) -> dict[str, nn.Parameter]:
    """Give the attention layers low-rank adapters in fp32, by peft. Returns their parameters."""
    if importlib.util.find_spec("peft") is None:
        raise ValueError("LoRA is learned by peft, which is missing; install it: pip install 'minority-augment[t2i]'.")
    from peft import LoraConfig

    network = trained_network(denoiser)
    present = [end for end in _TARGETS if any(name.endswith(end) for name, _ in network.named_modules())]
    device = next(network.parameters()).device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        config = LoraConfig(
            r=settings.rank, lora_alpha=settings.alpha, target_modules=present, init_lora_weights="gaussian"
        )
        network.add_adapter(config)
    parameters = {name: value for name, value in network.named_parameters() if "lora_" in name}
    for value in parameters.values():
        value.data = value.data.to(device=device, dtype=torch.float32)
        value.requires_grad_(True)
    return parameters


def _identity(backbone: Backbone, data: CaptionedImages, settings: AdaptationSettings) -> str:
    decisive = replace(settings, checkpoint_every=1, look_every=None)
    digest = hashlib.sha256(repr((decisive, backbone.identity, list(map(tuple, data.captions)))).encode())
    digest.update(repr(data.images.shape).encode() + content_key(data.images))
    return digest.hexdigest()
