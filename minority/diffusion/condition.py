"""What the network is told beside state and time: nothing, labels, or the embeddings of prompts.

Plans, quotas and rows know labels only. Within a chain a condition is opaque: it has a length, it can be reordered, and
the denoiser understands it.

Shapes: B samples, L tokens, D features.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Embedding:
    """Prompts as the network sees them.

    Attributes:
        tensors: By name, each with the samples first: "text" (B, L, D), and what a family adds, such as "pooled".
    """

    tensors: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, rows: Tensor | slice) -> "Embedding":
        """Some of the samples, or all in another order."""
        return Embedding({name: tensor[rows] for name, tensor in self.tensors.items()})

    def to(self, device: torch.device | str) -> "Embedding":
        """The same on a device."""
        return Embedding({name: tensor.to(device) for name, tensor in self.tensors.items()})

    def detach(self) -> "Embedding":
        """The same numbers without their history of gradients."""
        return Embedding({name: tensor.detach() for name, tensor in self.tensors.items()})


#: None where the backbone is unconditional or is to be asked without a label, (B,) int64 labels, or embeddings.
Condition = Tensor | Embedding | None
