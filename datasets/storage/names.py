"""The names that become file names: datasets, runs and units."""

import re

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def is_name(name: str) -> bool:
    """Whether `require_name` lets it through.

    Example:
        >>> is_name("ham10000-small"), is_name("../elsewhere")
        (True, False)
    """
    return _NAME.fullmatch(name) is not None


def require_name(kind: str, name: str) -> None:
    """Refuse a name that is not safe as a file name everywhere.

    Args:
        kind: What is named, for the error, e.g. "run id".
        name: 1 to 64 small letters, digits, dots, _ and -, a letter or digit first.

    Raises:
        ValueError: Another name.
    """
    if not is_name(name):
        raise ValueError(
            f"{kind} {name!r} is not allowed: use 1 to 64 small letters, digits, dots, _ and -, "
            "beginning with a letter or digit."
        )
