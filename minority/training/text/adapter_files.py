"""What an adaptation learned, written as diffusers' own files with the scale that they need."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from minority.backbones.text.inversion import WORD_FILES


@dataclass(frozen=True, eq=False)
class Adapted:
    """What was learned.

    Attributes:
        lora: Factors by the names of the network's layers, as peft has them; empty at rank 0.
        lora_config: Of peft, with rank and alpha; None at rank 0.
        words: Word -> (n, D) for each text encoder; empty where captions have none.
    """

    lora: dict[str, Tensor]
    lora_config: dict[str, Any] | None
    words: dict[str, tuple[Tensor, ...]]


def save_adapted(folder: Path, adapted: Adapted, *, part: str) -> Path:
    """Write what was learned as diffusers' own files, scale included.

    Args:
        folder: Receives pytorch_lora_weights.safetensors, learned_embeds.safetensors, and for a second encoder
            learned_embeds_2.safetensors.
        adapted: What was learned.
        part: The folder of the network, "unet" or "transformer".
    """
    folder.mkdir(parents=True, exist_ok=True)
    if adapted.lora_config is not None:
        plain = {key: sorted(value) if isinstance(value, set) else value for key, value in adapted.lora_config.items()}
        config_text = json.dumps({f"{part}.{key}": value for key, value in plain.items()}, default=str)
        tensors = {f"{part}.{name}": value.contiguous() for name, value in adapted.lora.items()}
        metadata = {"format": "pt", "lora_adapter_metadata": config_text}
        save_file(tensors, folder / "pytorch_lora_weights.safetensors", metadata=metadata)
    for number, name in enumerate(WORD_FILES):
        words = {word: vectors[number] for word, vectors in adapted.words.items() if number < len(vectors)}
        if words:
            save_file(words, folder / name, metadata={"format": "pt"})
    return folder
