"""The ranges of numbers that the libraries' settings check themselves, for a schema that is to refuse them early.

A dataclass says in code which numbers it takes, and no schema can read that. So each is asked: at 0 and 1, where the
ranges of this project end, and right beside them. What a setting may be only together with others is not told.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

_SMALL = 2.0**-30


def bounds_of(section: type, setting: str, *, given: Mapping[str, Any], whole: bool) -> dict[str, int]:
    """The ends of a number's range in a schema's words, e.g. {"exclusiveMinimum": 0, "maximum": 1}.

    Args:
        section: The class that the setting is one of; of any but a dataclass nothing is told.
        setting: Its name.
        given: The settings that the class must have.
        whole: Whether only whole numbers are taken.
    """
    if not dataclasses.is_dataclass(section):
        return {}

    def takes(number: float) -> bool:
        try:
            section(**{**given, setting: int(number) if whole else number})
        except ValueError:
            return False
        return True

    if whole:
        if not takes(0) and takes(1):
            return {"minimum": 1}
        return {"minimum": 0} if not takes(-1) and takes(0) else {}
    bounds = {}
    if not takes(-_SMALL) and takes(_SMALL):
        bounds["minimum" if takes(0.0) else "exclusiveMinimum"] = 0
    if not takes(1 + _SMALL) and not takes(2.0) and takes(1 - _SMALL):  # 2 GPUs are taken, 1.5 are not
        bounds["maximum" if takes(1.0) else "exclusiveMaximum"] = 1
    return bounds
