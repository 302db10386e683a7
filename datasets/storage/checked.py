"""Files that carry a checksum of themselves, which is looked at whenever they are read back.

Two forms, each one file, so that content and checksum appear together by one rename or put:

- bytes of any kind end in a line of their own, `SHA-256: <64 hex digits>`. NumPy, zip and torch readers pass over it.
- a JSON object has the key `checksum` beside its own: the SHA-256 of its canonical spelling without that key.
"""

from typing import Any

from datasets.storage.canonical import DAMAGED, canonical_json, parse_json, sha256_hex
from datasets.storage.store import Store

CHECKSUM = "checksum"
_LINE = b"\nSHA-256: %s\n"
_LENGTH = len(_LINE % bytes(64))


class DamagedError(ValueError):
    """A file's content is not what its checksum says. The message names the file and the remedy."""


def write_checked(store: Store, name: str, data: bytes) -> None:
    """Write a file with its checksum, whole or not at all, over one of that name.

    Args:
        store: The store.
        name: The file's path in it.
        data: The content, of any length.

    Raises:
        StoreError: The store cannot be written.
    """
    store.write(name, data + _LINE % sha256_hex(data).encode("ascii"))


def create_checked(store: Store, name: str, data: bytes) -> bool:
    """The same unless a file of that name exists, which then stays. Returns whether this call wrote it.

    Raises:
        StoreError: The store cannot be written.
    """
    return store.create(name, data + _LINE % sha256_hex(data).encode("ascii"))


def read_checked(store: Store, name: str) -> bytes:
    """The content that `write_checked` was given.

    Raises:
        FileNotFoundError: There is no such file.
        DamagedError: The content is not what the checksum says, or there is none, as in files of earlier versions.
        StoreError: The store cannot be read.
    """
    stored = store.read(name)
    content, line = stored[:-_LENGTH], stored[-_LENGTH:]
    if line != _LINE % sha256_hex(content).encode("ascii"):
        raise DamagedError(f"{store.url(name)} is not what its checksum says, or has none; {DAMAGED}")
    return content


def checked_json(content: dict[str, Any]) -> bytes:
    """Spell an object as canonical JSON with its checksum.

    Raises:
        ValueError: It has the key `checksum` already, or something that JSON has no word for.
    """
    if CHECKSUM in content:
        raise ValueError(f"the key {CHECKSUM} is taken by the checksum; name it otherwise.")
    return canonical_json(content | {CHECKSUM: sha256_hex(canonical_json(content))})


def parse_checked_json(data: bytes, *, name: str) -> dict[str, Any]:
    """The object that `checked_json` was given.

    Args:
        data: The file's content.
        name: The file's name, for the error.

    Raises:
        DamagedError: It is no JSON object, or not the one that its checksum was made of, or has no checksum.
    """
    try:
        content = parse_json(data, name=name)
    except ValueError as error:
        raise DamagedError(str(error)) from error
    promised = content.pop(CHECKSUM, None)
    # The spelling counts too, so that no flipped bit passes, not even one that JSON does not care for.
    if promised is None or data != canonical_json(content | {CHECKSUM: sha256_hex(canonical_json(content))}):
        raise DamagedError(f"{name} is not what its checksum says, or has none; {DAMAGED}")
    return content
