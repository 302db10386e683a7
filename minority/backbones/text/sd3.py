"""Stable Diffusion 3 and 3.5 (Esser et al., ICML 2024): a flow told by two CLIP encoders and, if there is one, T5."""

from collections.abc import Sequence
from typing import Any

from diffusers import SD3Transformer2DModel
from torch import Tensor, nn

from minority.backbones.text.family import Family, dynamic_shift, network_time
from minority.diffusion.condition import Embedding

_LENGTH = 256  # tokens of T5, the pipeline's own


class StableDiffusion3(Family):
    """Stable Diffusion 3 and 3.5."""

    pipelines = ("StableDiffusion3Pipeline",)
    network_class = SD3Transformer2DModel
    limits = (("tokenizer", None), ("tokenizer_2", None), ("tokenizer_3", _LENGTH))

    def embed(self, parts: Any, texts: Sequence[str]) -> Embedding:
        """All encoders' states, joined along the tokens, and both CLIP encoders' pooled embeddings."""
        if parts.text_encoder_3 is None:  # zeros as wide as the network takes them
            parts.register_modules(transformer=_Width(self.config["joint_attention_dim"]))
        text, _, pooled, _ = parts.encode_prompt(
            list(texts), None, None, device="cpu", do_classifier_free_guidance=False, max_sequence_length=_LENGTH
        )
        return Embedding({"text": text, "pooled": pooled})

    def run(self, network: nn.Module, x: Tensor, time: Tensor, embedding: Embedding) -> Tensor:
        """The transformer's prediction."""
        text, pooled = embedding.tensors["text"].to(x.dtype), embedding.tensors["pooled"].to(x.dtype)
        output: Tensor = network(
            x,
            encoder_hidden_states=text,
            pooled_projections=pooled,
            timestep=network_time(1000 * time, x),
            return_dict=False,
        )[0]
        return output

    def sigmas(self, scheduler: Any, num_steps: int, shape: tuple[int, int, int]) -> Tensor:
        """As the pipeline: a line through the shifted ends, shifted again; or by the number of tokens."""
        shift = {}
        if scheduler.config.use_dynamic_shifting:
            tokens = shape[1] * shape[2] // int(self.config["patch_size"]) ** 2
            shift["mu"] = dynamic_shift(scheduler.config, tokens, max_shift=1.16)
        scheduler.set_timesteps(num_steps, **shift)
        sigmas: Tensor = scheduler.sigmas[:-1]
        return sigmas


class _Width(nn.Module):
    """Stands for the transformer where its pipeline asks how wide missing embeddings are."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.config = type("Config", (), {"joint_attention_dim": width})()
