"""CLIP's text encoders (Radford et al. 2021) with learnable tokens in the prompt.

Learnable tokens get numbers above the vocabulary, as a tokenizer gives to added ones, and stand before the end of the
text or before the prompt.

Shapes: B prompts, L tokens, n learnable tokens a prompt, D features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.func import functional_call

from minority.backbones.backbone import BackboneError

Position = Literal["start", "end"]


@dataclass(frozen=True, eq=False)
class ClipEncoder:
    """A CLIP text encoder and its tokenizer.

    Attributes:
        tokenizer: transformers' CLIPTokenizer.
        model: CLIPTextModel or CLIPTextModelWithProjection.
    """

    tokenizer: Any
    model: Any

    @property
    def vocabulary(self) -> Tensor:
        """(V, D) the embeddings of all words."""
        weight: Tensor = self.model.get_input_embeddings().weight
        return weight

    def word(self, word: str) -> int:
        """The number of a word that is one token.

        Raises:
            ValueError: Where it is several, or none.
        """
        numbers = self.tokenizer.encode(word, add_special_tokens=False)
        if len(numbers) != 1:
            raise ValueError(f"the word {word!r} is {len(numbers)} tokens here; choose a word of one token.")
        return int(numbers[0])

    def ids(self, texts: Sequence[str], *, learnable: int = 0, position: Position = "end") -> Tensor:
        """(B, L) token numbers of prompts, filled up to the encoder's length.

        Args:
            texts: B prompts.
            learnable: n tokens that each prompt gets in addition, sample by sample from the vocabulary's end on.
            position: Where they stand.

        Raises:
            BackboneError: Where a prompt is too long; it is not cut.
        """
        length = int(self.tokenizer.model_max_length)
        rows = []
        for sample, text in enumerate(texts):
            first, *words, last = self.tokenizer(text, truncation=False).input_ids
            if len(words) + 2 + learnable > length:
                extra = f" and {learnable} learnable ones" if learnable else ""
                raise BackboneError(
                    f"the prompt {text!r:.80} has {len(words)} tokens{extra}, the text encoder takes "
                    f"{length - 2}; shorten it."
                )
            token_ids = [len(self.vocabulary) + sample * learnable + i for i in range(learnable)]
            words = [*token_ids, *words] if position == "start" else [*words, *token_ids]
            row = [first, *words, last]
            rows.append(row + [self.tokenizer.pad_token_id] * (length - len(row)))
        return torch.tensor(rows, dtype=torch.int64, device=self.vocabulary.device)

    def __call__(
        self,
        texts: Sequence[str],
        *,
        tokens: Tensor | None = None,
        position: Position = "end",
        hidden: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Encode prompts.

        Args:
            texts: B prompts.
            tokens: (B, n, D) embeddings of learnable tokens; gradients flow back to them.
            position: Where they stand in the prompt.
            hidden: Which layer's states to give, such as -2; None the last ones, normalised.

        Returns:
            (B, L, D) the states, and (B, P) the model's pooled embedding of the whole text.
        """
        ids = self.ids(texts, learnable=0 if tokens is None else tokens.shape[1], position=position)
        arguments: dict[str, Any] = {"input_ids": ids, "output_hidden_states": hidden is not None}
        if tokens is None:
            output = self.model(**arguments)
        else:
            table = torch.cat([self.vocabulary, tokens.flatten(0, 1).to(self.vocabulary.dtype)])
            output = functional_call(self.model, {self._table_name: table}, (), arguments)
        states = output.last_hidden_state if hidden is None else output.hidden_states[hidden]
        return states, output.text_embeds if "text_embeds" in output else output.pooler_output

    @property
    def _table_name(self) -> str:
        return next(name for name, parameter in self.model.named_parameters() if parameter is self.vocabulary)
