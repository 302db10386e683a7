"""Settings that had another name before: read under both names, hashed under the former one, so that recipes stay."""

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

#: Former dotted name, its sections under their names of now -> name of now.
_NOW = {
    "selection.held_out.critic": "discriminator",
    "selection.held_out.discriminator.mirrored_is_fake": "mirrored_is_negative",
    "selection.held_out.realness": "p_real",
    "sampler.prune_and_branch.family": "particle_group",
    "sampler.prune_and_branch.judge": "weight_by",
    "sampler.prune_and_branch.max_siblings": "max_copies",
    "sampler.minority_prompt.place": "position",
    "calibration.space.minority_prompt.place": "position",
    "calibration.space.walks": "solvers",
    "calibration.space.prune_and_branch.family": "particle_group",
    "calibration.space.prune_and_branch.judge": "weight_by",
    "calibration.space.prune_and_branch.max_siblings": "max_copies",
    "backbone.told_guidance": "embedded_guidance",
}
_FORMERLY = {f"{former.rpartition('.')[0]}.{now}": former.rpartition(".")[2] for former, now in _NOW.items()}


def under_new_names(settings: Mapping[str, Any], *, below: str = "") -> dict[str, Any]:
    """The same settings under the names of now; each former one is told once, in the log.

    Args:
        settings: Sections in sections, as a preset, a manifest or a command line gives them.
        below: Dotted name of what they are the settings of; "" for a whole config.

    Raises:
        ValueError: A setting is there under both of its names.
    """
    renamed: dict[str, Any] = _renamed(settings, below, _new_name)
    return renamed


def under_former_names(settings: Mapping[str, Any], *, below: str = "") -> dict[str, Any]:
    """The same settings as recipes know them; arguments as of `under_new_names`."""
    renamed: dict[str, Any] = _renamed(settings, below, lambda path: _FORMERLY.get(path, path.rpartition(".")[2]))
    return renamed


def new_name(path: str) -> str:
    """The dotted name of now of a setting."""
    parts: list[str] = []
    for part in path.split("."):
        parts.append(_new_name(".".join([*parts, part])))
    return ".".join(parts)


def names_of(path: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Every name by which a setting is read, as its parts: that of now, and those with former names in it.

    Args:
        path: The parts of its dotted name of now.
    """
    parts = [
        (part, _FORMERLY[key]) if (key := ".".join(path[: i + 1])) in _FORMERLY else (part,)
        for i, part in enumerate(path)
    ]
    return itertools.product(*parts)


def _new_name(path: str) -> str:
    if path in _NOW:
        _tell(path, _NOW[path])
    return _NOW.get(path, path.rpartition(".")[2])


@lru_cache(maxsize=len(_NOW))
def _tell(path: str, now: str) -> None:
    logging.getLogger(__name__).warning("%s is called %s now; the former name is still read", path, now)


def _renamed(node: Any, path: str, name_of: Callable[[str], str]) -> Any:
    if isinstance(node, list | tuple):
        return [_renamed(entry, path, name_of) for entry in node]
    if not isinstance(node, Mapping):
        return node
    renamed: dict[str, Any] = {}
    for key, value in node.items():
        name = name_of(f"{path}.{key}" if path else str(key))
        if name in renamed or (name != key and name in node):
            raise ValueError(f"{path}.{name} is given twice, under its former name too; leave one of them out.")
        # Below a section that is renamed, paths go on under its name of now.
        now = key if name_of is not _new_name else name
        renamed[name] = _renamed(value, f"{path}.{now}" if path else now, name_of)
    return renamed
