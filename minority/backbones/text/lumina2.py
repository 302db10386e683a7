"""Lumina-Image 2.0 (Qin et al. 2025): a flow whose time runs the other way, told by Gemma after a system prompt."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from diffusers import Lumina2Transformer2DModel
from torch import Tensor, nn

from minority.backbones.text.family import Family, dynamic_shift, network_time
from minority.diffusion.condition import Embedding

_LENGTH = 256  # tokens, the pipeline's own


class Lumina2(Family):
    """Lumina-Image 2.0."""

    pipelines = ("Lumina2Pipeline",)
    network_class = Lumina2Transformer2DModel
    limits = (("tokenizer", _LENGTH),)

    def embed(self, parts: Any, texts: Sequence[str]) -> Embedding:
        """Gemma's last but one states behind the pipeline's system prompt, and which of them are words."""
        text, mask, _, _ = parts.encode_prompt(
            list(texts), do_classifier_free_guidance=False, device="cpu", max_sequence_length=_LENGTH
        )
        return Embedding({"text": text, "mask": mask})

    def embed_negative(self, parts: Any, text: str | None) -> Embedding:
        """The negative prompt, which has no system prompt before it."""
        _, _, states, mask = parts.encode_prompt(
            [""], negative_prompt=[text or ""], device="cpu", max_sequence_length=_LENGTH
        )
        return Embedding({"text": states, "mask": mask})

    def check(self, parts: Any, texts: Sequence[str]) -> None:
        """Refuse prompts that do not fit behind the system prompt."""
        super().check(parts, [f"{parts.system_prompt} <Prompt Start> {text}" for text in texts])

    def run(self, network: nn.Module, x: Tensor, time: Tensor, embedding: Embedding) -> Tensor:
        """The transformer's prediction, which is clean state minus noise, turned round."""
        output: Tensor = network(
            x,
            timestep=network_time(1 - time, x),
            encoder_hidden_states=embedding.tensors["text"].to(x.dtype),
            encoder_attention_mask=embedding.tensors["mask"],
            return_dict=False,
        )[0]
        return -output

    def sigmas(self, scheduler: Any, num_steps: int, shape: tuple[int, int, int]) -> Tensor:
        """Evenly spaced, shifted by what the pipeline takes for the number of tokens: that of the channels."""
        mu = dynamic_shift(scheduler.config, shape[0])
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / num_steps, num_steps), mu=mu)
        sigmas: Tensor = scheduler.sigmas[:-1]
        return sigmas
