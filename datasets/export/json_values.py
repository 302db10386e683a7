"""A row's values in JSON, which has no number for "none" and "infinite"."""

import json
import math
from typing import Any


def json_value(value: Any) -> Any:
    """The value as JSON has it; NaN and infinity become None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [json_value(below) for below in value]
    return value


def json_text(value: Any) -> str:
    """Strict JSON in one line, characters of all scripts as they are."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
