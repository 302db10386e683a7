"""The prompts of a text-to-image backbone: some for every label, and a negative one for "no label"."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

_PROMPTS = 0x9409  # keeps the choice of prompts apart from other draws by seed and index


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """What the labels of a text-to-image backbone stand for.

    Attributes:
        texts: For every label 0 ... K - 1 its prompts, one at least.
        negative: The negative prompt, which is "no label"; None takes what the family's pipeline takes where none is
            given: the empty prompt, or zeros.
    """

    texts: tuple[tuple[str, ...], ...]
    negative: str | None = None

    def __post_init__(self) -> None:
        for label, texts in enumerate(self.texts):
            if not texts:
                raise ValueError(f"label {label} has no prompt; give every group one at least.")

    @property
    def flat(self) -> tuple[str, ...]:
        """All prompts in the order of the table's rows."""
        return tuple(text for texts in self.texts for text in texts)

    def rows(self, seed: int, indices: Sequence[int], labels: Sequence[int]) -> list[int]:
        """The row of the table that each sample is drawn with, decided by (seed, index, label) alone.

        Args:
            seed: The run's seed.
            indices: Sample indices.
            labels: One a sample, 0 ... K - 1; K stands for "no label", as the last row does.
        """
        return [self._row(seed, index, label) for index, label in zip(indices, labels, strict=True)]

    def chosen(self, seed: int, indices: Sequence[int], labels: Sequence[int]) -> list[str]:
        """The prompt of each sample; the negative one for "no label"."""
        texts = (*self.flat, self.negative or "")
        return [texts[row] for row in self.rows(seed, indices, labels)]

    def _row(self, seed: int, index: int, label: int) -> int:
        if label == len(self.texts):
            return len(self.flat)
        count = len(self.texts[label])
        if count == 1:
            return self._first_rows[label]
        return self._first_rows[label] + int(np.random.default_rng([seed, index, label, _PROMPTS]).integers(count))

    @cached_property
    def _first_rows(self) -> list[int]:
        return np.cumsum([0, *(len(texts) for texts in self.texts)]).tolist()
