"""Which files of a folder a pattern names: wildcards, and braces such as {000..127} or {train,val}."""

import re
from pathlib import Path

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_WILD = re.compile(r"[*?\[{]")
_MOST = 100_000  # files of one pattern


def files_of(root: Path, pattern: str) -> list[Path]:
    """The plain files, sorted.

    Args:
        root: The folder.
        pattern: A name below it, with wildcards and braces; "{08..11}" counts from 08 to 11, "{a,b}" is a or b.

    Raises:
        FileNotFoundError: Nothing fits the pattern, or a file that its braces name is not there.
        ValueError: Braces that mean nothing, or too many files.
    """
    paths: set[Path] = set()
    for name in expanded(pattern):
        fitting = [path for path in root.glob(name) if path.is_file()]
        if not fitting:
            raise FileNotFoundError(f"{root} holds no file {name!r:.80}; name a folder of tars, or the pattern.")
        paths.update(fitting)
    return sorted(paths)


def expanded(pattern: str) -> list[str]:
    """The pattern once for every choice that its braces leave, in their order.

    Raises:
        ValueError: Braces that mean nothing, or more than 100,000 choices.
    """
    names = [pattern]
    while braces := _BRACES.search(names[0]):
        choices = _choices(braces.group(1), pattern=pattern)
        if len(names) * len(choices) > _MOST:
            raise ValueError(f"{pattern!r:.80} names more than {_MOST:,} files; name fewer.")
        # Every name has the same braces left, at positions that differ.
        names = [_filled(name, choice) for name in names for choice in choices]
    return names


def _filled(name: str, choice: str) -> str:
    """The name with a choice in the place of its first braces."""
    before, _, rest = name.partition("{")
    return before + choice + rest.partition("}")[2]


def divided(place: str) -> tuple[Path, str]:
    """The folder without a wildcard or brace in it, and the pattern below it; a pattern of "" where there is none."""
    path = Path(place)
    if not _WILD.search(place) or path.exists():
        return path, ""
    first = next(index for index, part in enumerate(path.parts) if _WILD.search(part))
    return Path(*path.parts[:first]), "/".join(path.parts[first:])


def _choices(inside: str, *, pattern: str) -> list[str]:
    counted = _RANGE.fullmatch(inside)
    if counted is None:
        choices = inside.split(",")
        if len(choices) < 2:
            raise ValueError(f"the braces of {pattern!r:.80} hold no range (000..127) and no choice (a,b).")
        return choices
    low, high = counted.groups()
    if not 0 <= int(high) - int(low) < _MOST:
        raise ValueError(f"the range {inside} of {pattern!r:.80} must rise, by less than {_MOST:,}.")
    width = len(low) if low.startswith("0") else 0
    return [f"{number:0{width}d}" for number in range(int(low), int(high) + 1)]
