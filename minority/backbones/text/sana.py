"""Sana (Xie et al., ICLR 2025): a flow over latents that are 32 times smaller, told by Gemma after an instruction."""

import inspect
from collections.abc import Sequence
from typing import Any

from diffusers import SanaPipeline, SanaTransformer2DModel
from torch import Tensor, nn

from minority.backbones.text.family import Family, network_time
from minority.diffusion.condition import Embedding

_LENGTH = 300  # tokens, the pipeline's own


class Sana(Family):
    """Sana with a FlowMatchEulerDiscreteScheduler."""

    pipelines = ("SanaPipeline",)
    network_class = SanaTransformer2DModel
    limits = (("tokenizer", _LENGTH),)
    multiple = 1

    def embed(self, parts: Any, texts: Sequence[str]) -> Embedding:
        """Gemma's states behind the pipeline's instruction, and which of them are words."""
        instruction = inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
        text, mask, _, _ = parts.encode_prompt(
            list(texts),
            do_classifier_free_guidance=False,
            device="cpu",
            max_sequence_length=_LENGTH,
            complex_human_instruction=instruction,
        )
        return Embedding({"text": text, "mask": mask})

    def embed_negative(self, parts: Any, text: str | None) -> Embedding:
        """The negative prompt, which has no instruction before it."""
        states, mask, _, _ = parts.encode_prompt(
            [text or ""], do_classifier_free_guidance=False, device="cpu", max_sequence_length=_LENGTH
        )
        return Embedding({"text": states, "mask": mask})

    def run(self, network: nn.Module, x: Tensor, time: Tensor, embedding: Embedding) -> Tensor:
        """The transformer's prediction."""
        output: Tensor = network(
            x,
            encoder_hidden_states=embedding.tensors["text"].to(x.dtype),
            encoder_attention_mask=embedding.tensors["mask"],
            timestep=network_time(1000 * time * float(self.config.get("timestep_scale", 1.0)), x),
            return_dict=False,
        )[0]
        return output
