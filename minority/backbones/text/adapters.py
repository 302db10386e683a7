"""Adapters of text-to-image models: LoRA and textual inversion, from single files or folders that hold both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from minority.backbones.backbone import BackboneError
from minority.backbones.text.family import Family
from minority.backbones.text.inversion import WORD_FILES, NewWord, add_words, read_words
from minority.backbones.text.lora import Lora, add_lora, is_lora, read_lora, require_all
from minority.weights import file_sha256, joint_sha256
from minority.weights.reading import read_file

_IN_FOLDERS = (
    "pytorch_lora_weights.safetensors",
    "pytorch_lora_weights.bin",
    "adapter_model.safetensors",
    "adapter_model.bin",
    "learned_embeds.safetensors",
    "learned_embeds.bin",
)


@dataclass(frozen=True, kw_only=True)
class AdapterSettings:
    """One adapter.

    Attributes:
        path: A file, or a folder as diffusers or peft save one.
        strength: By which the stored scale of LoRA is multiplied; without effect on textual inversion.
        token: What prompts call the word of a textual inversion; None is what the file says.
    """

    path: Path
    strength: float = 1.0
    token: str | None = None


@dataclass(frozen=True, eq=False)
class Adapter:
    """One adapter as it was read.

    Attributes:
        settings: What was asked for.
        loras: Its low-rank adapters.
        words: Its new words.
        sha256: Over its files.
    """

    settings: AdapterSettings
    loras: tuple[Lora, ...]
    words: tuple[NewWord, ...]
    sha256: str

    def describe(self) -> list[str]:
        """What was found, in words."""
        strength = f", times {self.settings.strength:g}" if self.settings.strength != 1 else ""
        loras = [
            f"adapter: {lora.source.name}, LoRA of rank {lora.rank} on {len(lora.layers)} layers; scale: "
            f"{_range([layer.scale for layer in lora.layers])} ({lora.scale_source}){strength}"
            for lora in self.loras
        ]
        return loras + [
            f"adapter: {word.source.name}, textual inversion, the word {word.word} of {len(word.names)} tokens"
            for word in self.words
        ]


def read_adapter(settings: AdapterSettings, config: Mapping[str, Any]) -> Adapter:
    """Read an adapter; nothing in its files is run.

    Args:
        settings: Which.
        config: Of the network that it is for.

    Raises:
        BackboneError: Where a file is missing, broken, would run code, or is of another kind.
    """
    path = settings.path
    files = [path / name for name in _IN_FOLDERS if (path / name).is_file()] if path.is_dir() else [path]
    if not files:
        raise BackboneError(f"the adapter {path} holds none of {', '.join(_IN_FOLDERS)}; name its file.")
    loras, words = [], []
    for file in files:
        if is_lora(_names(file)):
            loras.append(read_lora(file, layers_per_block=config.get("layers_per_block")))
        else:
            words += read_words(file, word=settings.token)
    if settings.token is not None and not words:
        raise BackboneError(f"the adapter {path} is no textual inversion, so it has no token; leave token out.")
    checksums = {file.name: file_sha256(file) for file in [*files, path / WORD_FILES[1]] if file.is_file()}
    scales = (path if path.is_dir() else path.parent) / "adapter_config.json"
    if loras and scales.is_file():
        checksums[scales.name] = file_sha256(scales)
    return Adapter(settings, tuple(loras), tuple(words), joint_sha256(checksums))


def adapt_text(adapters: Sequence[Adapter], parts: Any, family: Family) -> dict[Lora, set[str]]:
    """Bring adapters into text encoders and tokenizers, in place.

    Returns:
        For each low-rank adapter, the keys of its layers that are the text encoders'.

    Raises:
        BackboneError: Where one is of another architecture, or the family has no encoder that it could go into.
    """
    done = {}
    names = ("text_encoder", "text_encoder_2")
    models = {name: part for name in names if isinstance(part := getattr(parts, name, None), nn.Module)}
    for adapter in adapters:
        if adapter.words:
            add_words(adapter.words, family.clips(parts))
        for lora in adapter.loras:
            done[lora] = add_lora(lora, models, strength=adapter.settings.strength)
    return done


def adapt_network(adapters: Sequence[Adapter], network: nn.Module, done: Mapping[Lora, set[str]]) -> None:
    """Bring adapters into the denoising network, in place.

    Args:
        adapters: As they were read.
        network: The network.
        done: As `adapt_text` returned it.

    Raises:
        BackboneError: Where layers of one are neither the network's nor the text encoders'.
    """
    for adapter in adapters:
        for lora in adapter.loras:
            added = add_lora(lora, {"network": network}, strength=adapter.settings.strength)
            require_all(lora, added | done[lora])


def expanded(text: str, adapters: Sequence[Adapter]) -> str:
    """A prompt as tokenizers see it, with as many tokens as its new words have vectors."""
    for adapter in adapters:
        for word in adapter.words:
            text = word.expand(text)
    return text


def require_use(adapters: Sequence[Adapter], texts: Sequence[str]) -> None:
    """Refuse new words that no prompt has.

    Raises:
        BackboneError: With the word.
    """
    unused = [word.word for a in adapters for word in a.words if not any(word.word in text for text in texts)]
    if unused:
        raise BackboneError(
            f"no prompt has the word {unused[0]}, which an adapter brings; put it into backbone.prompts, or leave the "
            "adapter out."
        )


def _names(file: Path) -> list[str]:
    content = read_file(file)
    return [str(name) for name in content] if isinstance(content, Mapping) else []


def _range(scales: Sequence[float]) -> str:
    low, high = min(scales), max(scales)
    return f"{low:g}" if low == high else f"{low:g} ... {high:g}"
