"""Textual inversion (Gal et al. 2022): new words of a prompt as vectors, read from the files that people have.

Files are a table {word: vectors} (diffusers, one or several words), or A1111's, or SDXL's with clip_l and clip_g.
A word of several vectors stands for as many tokens, as in diffusers.

Shapes: n vectors of D features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minority.backbones.backbone import BackboneError
from minority.backbones.text.clip import ClipEncoder
from minority.weights import read_tensors, require_finite_tensors
from minority.weights.reading import outline, read_file

#: The files of words in a folder, one for each text encoder.
WORD_FILES = ("learned_embeds.safetensors", "learned_embeds_2.safetensors")
_ENCODERS = ("clip_l", "clip_g")  # SDXL's, in the order of its encoders


@dataclass(frozen=True, eq=False)
class NewWord:
    """One word.

    Attributes:
        source: Its file.
        word: As prompts have it, e.g. "<rare-cat>".
        vectors: (n, D) for each encoder.
    """

    source: Path
    word: str
    vectors: tuple[Tensor, ...]

    @property
    def names(self) -> list[str]:
        """Its tokens, one a vector."""
        return [self.word, *(f"{self.word}_{i}" for i in range(1, len(self.vectors[0])))]

    def expand(self, text: str) -> str:
        """A prompt with a token for each vector."""
        return text.replace(self.word, " ".join(self.names))


def read_words(path: Path, *, word: str | None = None) -> list[NewWord]:
    """Read a file of textual inversion.

    Args:
        path: `.safetensors`, or a file of `torch.save`, which is read without running any code in it.
        word: What prompts call it; None is what the file says. A file of WORD_FILES is read with the one beside it.

    Raises:
        BackboneError: Where it cannot be read, would run code, holds something else, or names no word and none is
            given.
    """
    content = read_file(path)
    if not isinstance(content, Mapping):
        raise BackboneError(f"{path} holds no textual inversion ({outline(content)}); give a table of vectors by word.")
    table, stored = _table(content)
    if not table or not all(isinstance(value, Tensor) and value.ndim in (1, 2) for v in table.values() for value in v):
        raise BackboneError(f"{path} holds no textual inversion ({outline(content)}); give a table of vectors by word.")
    second = path.with_name(WORD_FILES[1])
    if path.name == WORD_FILES[0] and second.is_file():
        for name, value in read_tensors(second).items():
            table.setdefault(name, []).append(value)
    require_finite_tensors({name: value for name, values in table.items() for value in values}, source=path)
    if word is not None and len(table) > 1:
        raise BackboneError(
            f"{path} has the words {', '.join(table)}, so no single one can be renamed; leave token out."
        )
    if stored is None and word is None:
        raise BackboneError(f"{path} does not say what its word is; set token, e.g. token: <rare-cat>.")
    return [
        NewWord(path, word or name, tuple(value.float().reshape(-1, value.shape[-1]) for value in values))
        for name, values in table.items()
    ]


def add_words(words: Sequence[NewWord], clips: Sequence[ClipEncoder]) -> None:
    """Add words to CLIP encoders and their tokenizers, in place.

    Raises:
        BackboneError: Where a word is of another architecture, or is a token already.
    """
    for word in words:
        widths = [vectors.shape[1] for vectors in word.vectors]
        here = [clip.vocabulary.shape[1] for clip in clips]
        if widths != here:
            raise BackboneError(
                f"{word.source} is for another architecture: its word {word.word} has vectors of {widths} features, "
                f"the text encoders here take {here or 'none'}; take one that was learned for this model."
            )
        for clip, vectors in zip(clips, word.vectors, strict=True):
            _add(clip, word, vectors)


def _add(clip: ClipEncoder, word: NewWord, vectors: Tensor) -> None:
    known = [name for name in word.names if clip.tokenizer.convert_tokens_to_ids(name) != clip.tokenizer.unk_token_id]
    if known:
        raise BackboneError(f"{word.source}: {known[0]} is a token of this model already; set another token.")
    clip.tokenizer.add_tokens(word.names)
    size = len(clip.vocabulary)
    numbers = clip.tokenizer.convert_tokens_to_ids(word.names)
    with torch.no_grad():
        table = torch.cat([clip.vocabulary, vectors.to(clip.vocabulary)])
    if numbers != list(range(size, len(table))):
        raise BackboneError(
            f"{word.source}: the tokenizer and its encoder have not as many tokens; fetch the model again."
        )
    embedding: Any = clip.model.get_input_embeddings()
    embedding.weight = torch.nn.Parameter(table, requires_grad=False)
    embedding.num_embeddings = len(table)
    # Older configs look for the end of the text where the token number is largest, which a new word's is.
    for part in clip.model.modules():
        if hasattr(part, "eos_token_id"):
            part.eos_token_id = clip.tokenizer.eos_token_id


def _table(content: Mapping[Any, Any]) -> tuple[dict[str, list[Any]], str | None]:
    """Word -> its vectors for each encoder, and the word if the file says one."""
    if "string_to_param" in content:  # A1111
        vectors, name = content["string_to_param"], content.get("name")
        values = list(vectors.values()) if isinstance(vectors, Mapping) else []
        return {str(name or "*"): values[:1]}, name
    if set(content) <= set(_ENCODERS):
        return {"*": [content[name] for name in _ENCODERS if name in content]}, None
    if set(content) == {"emb_params"}:
        return {"*": [content["emb_params"]]}, None
    return {str(name): [value] for name, value in content.items()}, next(map(str, content), None)
