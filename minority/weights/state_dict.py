"""The state dict in a checkpoint, however its training script wrapped it.

Names are taken as the model has them. What stands before all of them is found by one tensor that every model of the
kind has, the *landmark*: `module.` of DataParallel, `_orig_mod.` of torch.compile, `model.diffusion_model.` of
Lightning, or the keys of a checkpoint such as {"model": ..., "ema": ..., "optimizer": ...}.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from minority.weights.errors import WeightsError
from minority.weights.reading import outline, read_file, require_finite_tensors, require_honest_size

_COMPILED = "_orig_mod."
_DEEPEST = 6  # tables within tables


@dataclass(frozen=True, eq=False)
class StateDict:
    """The tensors of one model.

    Attributes:
        tensors: By the model's own names, on the CPU.
        prefix: What stood before every name, with keys of wrapping tables: "ema.module."; "" where nothing did.
        left_out: Tensors of the file that are no part of it.
    """

    tensors: dict[str, Tensor]
    prefix: str = ""
    left_out: int = 0

    def notes(self) -> list[str]:
        """What was done to the names, in words."""
        notes = [f"prefix {self.prefix} taken off"] if self.prefix else []
        return [*notes, f"{self.left_out} other tensors left out"] if self.left_out else notes


def read_state_dict(
    files: Sequence[Path],
    *,
    landmark: str,
    pick: str | None = None,
    rename: Callable[[str], str] = str,
    remedy: str = "",
) -> StateDict:
    """Read the tensors of one model, taking off what wraps them.

    Args:
        files: A `.safetensors` file, or a file of `torch.save`, which is read without running any code in it; or all
            shards of one.
        landmark: Name of a tensor that every model of this kind has.
        pick: Which one, where the file holds several, such as "ema": a part of its prefix.
        rename: Applied to every name first, for older names of the same tensors.
        remedy: How one is picked, for the message.

    Raises:
        WeightsError: Where the file is missing or broken, holds several models and none is picked, or holds a number
            that is not finite.
    """
    path, contents = files[0], [read_file(file) for file in files]
    tensors: dict[str, Tensor] = {}
    stored: dict[str, str] = {}  # the name in the file
    for name, value in (pair for content in contents for pair in _flat(content)):
        plain = rename(name.replace(_COMPILED, ""))
        if plain in tensors:
            raise WeightsError(f"{path} holds {stored[plain]} and {name}, two copies of one tensor; save one of them.")
        tensors[plain], stored[plain] = value, name
    if not tensors:
        raise WeightsError(f"{path} is not a table of tensors ({outline(contents[0])}); save the state dict alone.")
    prefixes = {name.removesuffix(landmark) for name in tensors if f".{name}".endswith(f".{landmark}")}
    prefix = _chosen(path, sorted(prefixes), pick=pick, remedy=remedy)
    wanted = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    require_honest_size(wanted, source=path, stored=sum(file.stat().st_size for file in files))
    require_finite_tensors(wanted, source=path)
    taken_off = stored.get(prefix + landmark, "").removesuffix(landmark)
    return StateDict(wanted, prefix=taken_off, left_out=len(tensors) - len(wanted))


def _chosen(path: Path, prefixes: list[str], *, pick: str | None, remedy: str) -> str:
    named = {prefix: prefix.rstrip(".") or "the top of the file" for prefix in prefixes}
    if pick is not None:
        prefixes = [prefix for prefix in prefixes if pick in (named[prefix], *prefix.split("."))]
        if not prefixes:
            raise WeightsError(f"{path} holds no model {pick!r}; there are {', '.join(named.values()) or 'none'}.")
    if len(prefixes) > 1:
        raise WeightsError(
            f"{path} holds {len(prefixes)} models: {', '.join(named[prefix] for prefix in prefixes)}; {remedy}."
        )
    return prefixes[0] if prefixes else ""


def _flat(content: object, prefix: str = "", *, depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of nested tables with its dotted name; lists, as of an optimizer's parameters, are no tables."""
    if isinstance(content, Mapping) and depth < _DEEPEST:
        for key, value in content.items():
            if isinstance(value, Tensor):
                yield f"{prefix}{key}", value
            else:
                yield from _flat(value, f"{prefix}{key}.", depth=depth + 1)
