"""Words that are learned: rows below a text encoder's table of words (Gal et al. 2022, "textual inversion").

Shapes: K rows in all, n vectors a word of D features.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from minority.backbones.text.clip import ClipEncoder
from minority.backbones.text.family import Family
from minority.backbones.text.inversion import NewWord, add_words


class _WithRows(nn.Module):
    """A text encoder with learnable rows below its table of words.

    Args:
        model: transformers' model.
        rows: (K, D).
    """

    def __init__(self, model: Any, rows: nn.Parameter) -> None:
        super().__init__()
        self.model, self.rows = model, rows
        self.config = model.config
        table = model.get_input_embeddings().weight
        self._name = next(name for name, parameter in model.named_parameters() if parameter is table)
        self._kept = len(table) - len(rows)

    def get_input_embeddings(self) -> Any:
        """Of the model; its last rows are the learnable ones as they were at first."""
        return self.model.get_input_embeddings()

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """As the model, with the rows as they are now."""
        table = self.model.get_input_embeddings().weight[: self._kept]
        whole = torch.cat([table, self.rows.to(table)])
        return functional_call(self.model, {self._name: whole}, arguments, named)


def add_learnable(
    parts: Any, family: Family, words: Sequence[str], *, start_word: str, vectors: int, device: torch.device
) -> tuple[list[NewWord], list[nn.Parameter]]:
    """Put new words into the text encoders.

    Args:
        parts: The text encoders and tokenizers, which are changed in place.
        family: Theirs.
        words: As captions have them.
        start_word: A word of one token that they begin as; "" is the mean of the vocabulary.
        vectors: Of each word, n.
        device: Where the encoders compute.

    Returns:
        The words as they begin, and their rows (K, D), one parameter for each encoder.

    Raises:
        ValueError: There is no encoder that they could go into, or the start word is not one token.
    """
    if not words:
        return [], []
    clips = family.clips(parts)
    if not clips:
        raise ValueError(
            f"the captions have the new word {words[0]}, and {family.pipelines[0]} has no CLIP encoder that words "
            "could go into; write captions without angle brackets, LoRA alone is learned then."
        )
    starts = [_start_of(clip, start_word, vectors) for clip in clips]
    new = [NewWord(Path("captions"), word, tuple(starts)) for word in words]
    add_words(new, clips)
    names = [name for name in ("text_encoder", "text_encoder_2") if getattr(parts, name, None) is not None]
    rows = []
    for name, start in zip(names, starts, strict=True):
        row = nn.Parameter(start.repeat(len(words), 1).to(device))
        setattr(parts, name, _WithRows(getattr(parts, name).to(device), row))
        rows.append(row)
    return new, rows


def _start_of(clip: ClipEncoder, start_word: str, vectors: int) -> Tensor:
    """(n, D) where a new word begins."""
    table = clip.vocabulary.detach()
    vector = table[clip.word(start_word)] if start_word else table.mean(dim=0)
    return vector.float().repeat(vectors, 1).cpu()
