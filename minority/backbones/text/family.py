"""What a family of text-to-image pipelines has to say of itself; one file a family, over diffusers' own classes.

Shapes: B samples, C channels, H x W latent pixels, L tokens, D features.
"""

import importlib.util
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

import diffusers
import torch
from torch import Tensor, nn

from minority.backbones.backbone import BackboneError
from minority.backbones.component import read_json
from minority.backbones.text.clip import ClipEncoder, Position
from minority.diffusion.condition import Embedding

_LCM_SCALE = 8.5  # of diffusers' LatentConsistencyModelPipeline


class Family:
    """A family of pipelines.

    Attributes:
        pipelines: Names of the pipelines in model_index.json.
        network_class: The class of the denoising network.
        part: The folder that holds it.
        process: Whether it was trained on "numbered" noise levels or as a rectified "flow".
        limits: Tokenizers and the tokens that a prompt may have of each; None takes the tokenizer's own limit.
        multiple: Latent pixels that a side must be a multiple of.

    Args:
        config: Of the denoising network.
        factor: Image pixels a latent pixel, as the autoencoder has them.
        guidance: The guidance scale that FLUX.1-dev or an LCM is told; None is the pipeline's own.
    """

    pipelines: ClassVar[tuple[str, ...]]
    network_class: ClassVar[Any]
    part: ClassVar[str] = "transformer"
    process: ClassVar[Literal["numbered", "flow"]] = "flow"
    limits: ClassVar[tuple[tuple[str, int | None], ...]] = ()
    multiple: ClassVar[int] = 2

    def __init__(self, config: Mapping[str, Any], *, factor: int = 8, guidance: float | None = None) -> None:
        self.config, self.factor, self.guidance = config, factor, guidance

    @property
    def refusal(self) -> str | None:
        """Why a network with this config is not supported; None where it is."""
        return None

    @property
    def distilled(self) -> str | None:
        """Why its clean estimate is no mean, as its config tells; None where nothing says so."""
        return None

    @property
    def latent_side(self) -> int:
        """Side of a latent at the family's own size."""
        return int(self.config.get("sample_size") or 128)

    @property
    def channels(self) -> int:
        """Channels of a latent."""
        return int(self.config["in_channels"])

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network as it is called: with tensors alone, the batch first."""
        return network

    def embed(self, parts: Any, texts: Sequence[str]) -> Embedding:
        """Prompts as the network sees them.

        Args:
            parts: The pipeline, without its network and autoencoder.
            texts: B prompts.
        """
        raise NotImplementedError

    def embed_negative(self, parts: Any, text: str | None) -> Embedding:
        """The negative prompt; None is what the pipeline takes where none is given."""
        return self.embed(parts, [text or ""])

    def clips(self, parts: Any) -> list[ClipEncoder]:
        """The CLIP encoders that learnable tokens may go into; none where the family has others."""
        return []

    def embed_with_tokens(
        self, parts: Any, texts: Sequence[str], tokens: Sequence[Tensor], position: Position
    ) -> Embedding:
        """Prompts with learnable tokens, (B, n, D) for each of `clips`; differentiable by them."""
        raise BackboneError(f"{self.pipelines[0]} has no CLIP encoder that learnable tokens could go into.")

    def run(self, network: nn.Module, x: Tensor, time: Tensor, embedding: Embedding) -> Tensor:
        """Call the network.

        Args:
            network: The network that `wrap` made.
            x: (B, C, H, W) in the network's precision; of a flow, on its own scale.
            time: (B,) int64 timesteps, or of a flow the share of noise in (0, 1].
            embedding: Of B prompts.

        Returns:
            (B, C, H, W) its prediction; of a flow noise minus clean state.
        """
        raise NotImplementedError

    def sigmas(self, scheduler: Any, num_steps: int, shape: tuple[int, int, int]) -> Tensor:
        """(N,) of a flow: the shares of noise of a chain of N steps, from noise to clean, as its pipeline has them."""
        scheduler.set_timesteps(num_steps)
        sigmas: Tensor = scheduler.sigmas[:-1]
        return sigmas

    def check(self, parts: Any, texts: Sequence[str]) -> None:
        """Refuse prompts that the pipeline would cut.

        Raises:
            BackboneError: With the prompt and the limit.
        """
        for name, largest in self.limits:
            tokenizer = getattr(parts, name, None)
            if tokenizer is None:
                continue
            limit = largest or int(tokenizer.model_max_length)
            for text in texts:
                count = len(tokenizer(text, truncation=False).input_ids)
                if count > limit:
                    raise BackboneError(
                        f"the prompt {text!r:.80} has {count} tokens, {name} takes {limit} at most; shorten it."
                    )


def load_parts(path: Path, family: Family) -> Any:
    """The text parts of a pipeline: tokenizers, and encoders in fp32 for evaluation; no network, no autoencoder.

    Raises:
        BackboneError: Where transformers is missing, or the folder lacks a text encoder.
    """
    if importlib.util.find_spec("transformers") is None:
        raise BackboneError(
            f"{path} is a text-to-image pipeline, whose prompts need transformers; install it: "
            "pip install 'minority-augment[t2i]'."
        )
    index = read_json(path / "model_index.json")
    kept = [name for name in index if name.startswith(("text_encoder", "tokenizer"))]
    for name in kept:
        if index[name] and index[name][0] is not None and not (path / name).is_dir():
            raise BackboneError(f"{path / name} is missing; prompts cannot be embedded without it. Fetch it again.")
    dropped = {
        name: None
        for name, value in index.items()
        if isinstance(value, list) and name != "scheduler" and (name not in kept or value[0] is None)
    }
    weights = [p for name in kept for p in (path / name).glob("*model*")]
    only_half = bool(weights) and all(".fp16." in p.name for p in weights if p.suffix in (".safetensors", ".bin"))
    variant = {"variant": "fp16"} if only_half and any(".fp16." in p.name for p in weights) else {}
    pipeline_class = getattr(diffusers, index["_class_name"])
    try:
        with _no_progress_bars():
            parts = pipeline_class.from_pretrained(str(path), **dropped, **variant, local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise BackboneError(f"{path}: its text encoders cannot be read ({reason}); fetch the folder again.") from error
    for name in kept:
        part = getattr(parts, name)
        if isinstance(part, nn.Module):
            part.float().eval().requires_grad_(False)
    return parts


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    import transformers

    both = (diffusers.utils.logging, transformers.utils.logging)
    shown = [logging.is_progress_bar_enabled() for logging in both]
    for logging in both:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        for logging, was_shown in zip(both, shown, strict=True):
            if was_shown:
                logging.enable_progress_bar()


def lcm_condition(config: Mapping[str, Any], scale: float | None, x: Tensor) -> Tensor | None:
    """The guidance scale as latent consistency models are told it; None of networks that are told none.

    Sines and cosines of 1000 (scale - 1), as diffusers' pipelines embed it (Luo et al. 2023, "LCM").

    Args:
        config: Of the U-Net.
        scale: None is the pipeline's own.
        x: (B, C, H, W), whose batch, precision and device it gets.
    """
    width = config.get("time_cond_proj_dim")
    if width is None:
        return None
    half = width // 2
    rates = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10000.0) / max(1, half - 1)))
    angles = 1000 * ((_LCM_SCALE if scale is None else scale) - 1) * rates
    row = torch.cat([angles.sin(), angles.cos(), torch.zeros(width % 2)])
    return row.to(x).expand(len(x), -1)


def network_time(time: Tensor, x: Tensor) -> Tensor:
    """A time as networks take it: in fp32 also where they compute in half precision, in which 999 would be 1000."""
    return time.to(torch.promote_types(x.dtype, torch.float32))


def dynamic_shift(config: Mapping[str, Any], tokens: int, *, max_shift: float = 1.15) -> float:
    """The shift of a flow by the number of its tokens, as diffusers' pipelines draw a line through two of them.

    Args:
        config: Of the scheduler.
        tokens: How many a latent has.
        max_shift: At `max_image_seq_len` tokens, where the config does not say.
    """
    fewest, most = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", max_shift)
    slope = (high - low) / (most - fewest)
    return float(tokens * slope + low - slope * fewest)
