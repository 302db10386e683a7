"""Networks that are told a prompt, behind the denoiser contract: a label is a row of a table of embedded prompts.

Shapes: B samples, C channels, H x W latent pixels, R rows, the last of which stands for "no label".
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minority.backbones.flow import FlowDenoiser
from minority.backbones.network import NetworkDenoiser
from minority.backbones.scheduler import TrainedNoise
from minority.backbones.text.adapters import Adapter, adapt_text
from minority.backbones.text.clip import ClipEncoder, Position
from minority.backbones.text.family import Family, load_parts
from minority.backbones.text.lora import Lora
from minority.diffusion.condition import Condition, Embedding


class TextEncoders:
    """The text encoders of a folder, read again when prompts change while an image is drawn.

    Args:
        path: The pipeline's folder.
        family: Its family.
        adapters: What is brought into them.
    """

    def __init__(self, path: Path, family: Family, adapters: tuple[Adapter, ...] = ()) -> None:
        self._path, self._family, self._adapters = path, family, adapters

    def __deepcopy__(self, memo: object) -> "TextEncoders":
        return self

    def load(self) -> Any:
        """The encoders and tokenizers, read anew, so that they may be changed."""
        return load_adapted_parts(self._path, self._family, self._adapters)[0]

    def clips(self, device: torch.device) -> list[ClipEncoder]:
        """The CLIP encoders that learnable tokens may go into; none where the family has others."""
        return self._family.clips(_parts_on(self._path, self._family, self._adapters, str(device)))

    def embed(self, texts: list[str], tokens: list[Tensor], *, position: Position) -> Embedding:
        """Prompts with learnable tokens, (B, n, D) for each CLIP encoder; differentiable by them."""
        parts = _parts_on(self._path, self._family, self._adapters, str(tokens[0].device))
        return self._family.embed_with_tokens(parts, texts, tokens, position)


def load_adapted_parts(path: Path, family: Family, adapters: tuple[Adapter, ...]) -> tuple[Any, dict[Lora, set[str]]]:
    """The text parts of a folder with adapters in them, and the layers of these that are theirs."""
    parts = load_parts(path, family)
    return parts, adapt_text(adapters, parts, family)


@lru_cache(maxsize=2)
def _parts_on(path: Path, family: Family, adapters: tuple[Adapter, ...], device: str) -> Any:
    parts, _ = load_adapted_parts(path, family, adapters)
    for part in parts.components.values():
        if isinstance(part, nn.Module):
            part.to(device)
    return parts


class PromptTable(nn.Module):
    """Embedded prompts, the negative one last.

    Args:
        table: They.
    """

    def __init__(self, table: Embedding) -> None:
        super().__init__()
        self.names = list(table.tensors)
        for name, tensor in table.tensors.items():
            self.register_buffer(f"prompts_{name}", tensor.detach().clone(), persistent=False)

    @property
    def table(self) -> Embedding:
        """All of them."""
        return Embedding({name: getattr(self, f"prompts_{name}") for name in self.names})

    def look_up(self, condition: Condition, *, batch: int) -> Embedding:
        """The embeddings of rows, of the last row where there is no label, or those that are given."""
        if isinstance(condition, Embedding):
            return condition
        table = self.table
        rows = torch.full((batch,), len(table) - 1) if condition is None else condition
        return table[rows.to(next(iter(table.tensors.values())).device)]


class TextDenoiser(NetworkDenoiser):
    """A network trained on numbered noise levels.

    Args:
        network: Is set to evaluation.
        family: How it is called.
        trained: The noise that it was trained on.
        table: Embedded prompts, the negative one last.
        texts: The prompts of its rows.
        encoders: What embeds other prompts.
        state_shape: (C, H, W) of a latent.
        num_classes: Labels that the prompts stand for.
    """

    def __init__(
        self,
        network: nn.Module,
        family: Family,
        trained: TrainedNoise,
        *,
        table: Embedding,
        texts: tuple[str, ...],
        encoders: TextEncoders,
        state_shape: tuple[int, int, int],
        num_classes: int,
    ) -> None:
        super().__init__(
            trained.schedule,
            state_shape=state_shape,
            prediction_type=trained.prediction_type,
            num_classes=num_classes,
            no_label=len(table) - 1,
        )
        self.network, self.family = family.wrap(network.eval()), family
        self.prompts, self.texts, self.encoders = PromptTable(table), texts, encoders

    def labels_for(self, label: Condition, *, batch: int, device: torch.device) -> Any:
        """The embeddings that the network is told."""
        return self.prompts.look_up(label, batch=batch)

    def run(self, x: Tensor, timestep: Tensor, label: Any) -> Tensor:
        """The network's prediction; a learned variance, which the family's pipeline drops, is dropped."""
        return self.family.run(self.network, x, timestep, label)[:, : self.state_shape[0]]


class FlowTextDenoiser(FlowDenoiser):
    """A network trained as a rectified flow.

    Args:
        network: Is set to evaluation.
        family: How it is called.
        table: Embedded prompts, the negative one last.
        texts: The prompts of its rows.
        encoders: What embeds other prompts.
        state_shape: (C, H, W) of a latent.
        num_classes: Labels that the prompts stand for.
    """

    def __init__(
        self,
        network: nn.Module,
        family: Family,
        *,
        table: Embedding,
        texts: tuple[str, ...],
        encoders: TextEncoders,
        state_shape: tuple[int, int, int],
        num_classes: int,
    ) -> None:
        super().__init__(self._velocity)
        self.network, self.family = family.wrap(network.eval()), family
        self.prompts, self.texts, self.encoders = PromptTable(table), texts, encoders
        self.state_shape, self.num_classes, self.no_label = state_shape, num_classes, len(table) - 1

    def _velocity(self, x: Tensor, share: Tensor, label: Condition) -> Tensor:
        dtype = next(parameter.dtype for parameter in self.network.parameters())
        output = self.family.run(self.network, x.to(dtype), share, self.prompts.look_up(label, batch=len(x)))
        return output[:, : self.state_shape[0]].to(x.dtype)


def table_of(rows: list[Embedding]) -> Embedding:
    """Embeddings below one another."""
    names: Mapping[str, Tensor] = rows[0].tensors
    return Embedding({name: torch.cat([row.tensors[name] for row in rows]) for name in names})
