"""The largest numbers that make sense, so that a slip of a zero is refused by the config and not by a full memory."""

import math
from collections.abc import Iterator
from typing import Any

#: The most of any setting that is not named below.
_MOST = 10**9
#: Name of a setting, wherever it stands -> the most that it may be.
_MOST_OF = {
    "quota": 10**7,
    "max_rounds": 1000,
    "candidates_per_image": 1000,
    "unit_size": 10**5,
    "units_a_task": 10**6,
    "samples_per_shard": 10**5,
    "batch_size": 10**6,
    "image_size": 4096,
    "input_size": 4096,
    "width": 10**4,
    "layers_per_block": 1000,
    "attention_head_dim": 10**4,
    "block_out_channels": 10**5,
    "timesteps": 10**6,
    "draws": 10**5,
    "elbo_steps": 10**5,
    "bits_steps": 10**6,
    "sampling_steps": 10**6,
    "neighbours": 10**6,
    "folds": 1000,
    "seeds": 1000,
    "tuning_seeds": 1000,
    "trials": 1000,
    "candidates": 10**5,
    "particle_group": 10**5,
    "gpus": 10**4,
    "cpus": 10**4,
    "processes": 10**4,
    "budget": 10**13,
}
#: Any 63 bits are a seed.
_BOUNDLESS = {"seed"}
#: Candidates of a run, at most: a plan of so many takes over a gigabyte.
MOST_CANDIDATES = 10**8


def largest(setting: str) -> int | None:
    """The most that a setting of this name may be, wherever it stands; None where any number is allowed."""
    return None if setting in _BOUNDLESS else _MOST_OF.get(setting, _MOST)


def require_sane_numbers(settings: Any) -> None:
    """Refuse numbers that no machine could obey, and those that are none.

    Args:
        settings: Plain values: mappings, lists, numbers, texts.

    Raises:
        ValueError: Naming the first such setting by its dotted key, and its limit.
    """
    for key, number in _numbers(settings):
        name = key.rsplit(".", 1)[-1]
        most = largest(name)
        if not math.isfinite(number):
            raise ValueError(f"{key} must be a finite number, got {number}.")
        if most is not None and abs(number) > most:
            raise ValueError(f"{key} must be at most {most:,}, got {number:,}.")


def _numbers(node: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a tree, with the dotted key of its setting."""
    if isinstance(node, dict):
        for name, below in node.items():
            yield from _numbers(below, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list | tuple):
        for below in node:
            yield from _numbers(below, key)
    elif isinstance(node, int | float) and not isinstance(node, bool):
        yield key, node
