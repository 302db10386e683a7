"""One spelling of JSON, so that equal contents are equal bytes and equal checksums."""

import hashlib
import json
from typing import Any

#: How a message about a file that cannot be trusted ends.
DAMAGED = "it is damaged: restore it or make it again."


def canonical_json(value: Any) -> bytes:
    """Spell a value as JSON bytes: sorted keys, one blank of indent, ASCII, a newline at the end.

    Raises:
        ValueError: The value holds NaN or infinity, or something that JSON has no word for.
    """
    try:
        text = json.dumps(value, sort_keys=True, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"cannot be written as JSON: {error}; use plain numbers, text, lists and mappings.") from error
    return (text + "\n").encode("ascii")


def parse_json(data: bytes, *, name: str) -> dict[str, Any]:
    """Read a JSON object from bytes.

    Args:
        data: The file's content.
        name: The file's name, for the error.

    Raises:
        ValueError: The bytes are not JSON, or not an object.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is not readable JSON ({error}); {DAMAGED}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{name} must hold a JSON object, got {type(value).__name__}; {DAMAGED}")
    return value


def sha256_hex(data: bytes) -> str:
    """SHA-256 of the bytes as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()
